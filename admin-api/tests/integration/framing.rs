//! Requests that no client means well with.

use crate::server::{Server, TOKEN, read_reply, request, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEAD: &str = "Host: localhost\r\nX-MLMMJADMIN-API-AUTH-TOKEN: 0123456789abcdef0123456789abcdef\r\n";

#[tokio::test]
async fn threat_t44_ambiguous_requests_are_refused_and_the_connection_closed() {
    let server = Server::start(settings()).await;
    let second = format!("GET /api/second@a.example HTTP/1.1\r\n{HEAD}\r\n");
    let get = "GET /api/list@a.example HTTP/1.1\r\n";
    let post = "POST /api/list@a.example HTTP/1.1\r\n";
    for (name, text) in [
        (
            "length and chunks",
            format!("{post}{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunks and length",
            format!("{post}{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ),
        ("chunks", format!("{post}{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("odd coding", format!("{post}{HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("two lengths", format!("{post}{HEAD}Content-Length: 0\r\nContent-Length: 5\r\n\r\n")),
        ("odd length", format!("{post}{HEAD}Content-Length: +5\r\n\r\n12345")),
        ("folded field", format!("{get}{HEAD}X-A: b\r\n c\r\n\r\n")),
        ("blank before colon", format!("{get}{HEAD}X-A : b\r\n\r\n")),
        ("two hosts", format!("{get}{HEAD}Host: other\r\n\r\n")),
        ("absolute form", format!("GET http://other/api/list@a.example HTTP/1.1\r\n{HEAD}\r\n")),
        ("control in path", format!("GET /api/li%00st@a.example HTTP/1.1\r\n{HEAD}\r\n")),
        ("newline in path", format!("GET /api/li%0ast@a.example HTTP/1.1\r\n{HEAD}\r\n")),
        ("overlong UTF-8", format!("GET /api/%c0%ae%c0%ae@a.example HTTP/1.1\r\n{HEAD}\r\n")),
        ("too many fields", format!("{get}{HEAD}{}\r\n", "X-A: b\r\n".repeat(200))),
        ("huge field", format!("{get}{HEAD}X-A: {}\r\n\r\n", "b".repeat(40_000))),
        ("no HTTP", "HELO example.com\r\n".to_owned()),
    ] {
        let mut stream = server.connect("lists").await;
        let _ = stream.write_all(format!("{text}{second}").as_bytes()).await;
        let Some(reply) = read_reply(&mut stream).await else { continue };
        assert!((400..500).contains(&reply.status), "{name}: {reply:?}");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{name}: a second answer: {}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut small = settings();
    small.http.max_list_body = outrider_core::settings::Size(1000);
    let server = Server::start(small).await;
    for (form, status) in [
        (format!("name={}", "x".repeat(2000)), 413),
        ("a=1&".repeat(200) + &"b&".repeat(50), 200),
        ("a=%ff".to_owned(), 400),
    ] {
        let reply = server.list("PUT", "/api/list@a.example", &form).await;
        assert_eq!(reply.status, status, "{:.20}", form);
    }
    let server = Server::start(settings()).await;
    let large = format!("name={}", "x".repeat(2 << 20));
    assert_eq!(server.list("PUT", "/api/list@a.example", &large).await.status, 200);
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    assert_eq!(server.account(&session, "PUT", "/api/domain/a.example", "name=x").await.status, 200);
    assert_eq!(server.account(&session, "PUT", "/api/domain/a.example", &large).await.status, 413);
    assert_eq!(server.list("PUT", "/api/list@a.example", &"a=1&".repeat(1001)).await.status, 400);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_others_are_served_meanwhile() {
    let mut quick = settings();
    quick.http.head_timeout = outrider_core::settings::Interval::seconds(1);
    quick.http.body_timeout = outrider_core::settings::Interval::seconds(1);
    let server = Server::start(quick).await;
    let mut head = server.connect("lists").await;
    head.write_all(b"GET /api/list@a.example HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut body = server.connect("lists").await;
    let text = format!(
        "POST /api/list@a.example HTTP/1.1\r\n{HEAD}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 100\r\n\r\nname="
    );
    body.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(server.list("GET", "/api/list@a.example", "").await.json()["_msg"], "NO_SUCH_ACCOUNT");
    assert_eq!(read_reply(&mut body).await.unwrap().status, 408);
    let mut rest = Vec::new();
    let _ = head.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
}

#[tokio::test]
async fn answers_are_not_cached_and_carry_an_id() {
    let server = Server::start(settings()).await;
    for (sent, expected) in
        [("X-Request-Id: abc-1\r\n", Some("abc-1")), ("X-Request-Id: a b\r\n", None), ("", None)]
    {
        let head = format!("X-MLMMJADMIN-API-AUTH-TOKEN: {TOKEN}\r\n{sent}");
        let reply =
            server.raw("lists", request("GET", "/api/list@a.example", &head, "").as_bytes()).await.unwrap();
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let id = reply.header("x-request-id").unwrap();
        assert!(expected.map_or(id.len() == 32, |expected| id == expected), "{id}");
    }
}
