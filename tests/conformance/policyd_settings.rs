//! iRedAPD's settings as JSON on standard input become ours, as JSON on standard output.

use std::process::ExitCode;

use outrider_policyd::settings::iredapd::translate;

fn main() -> ExitCode {
    let theirs = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(theirs) => theirs,
        Err(error) => {
            eprintln!("no JSON object of settings: {error}");
            return ExitCode::from(2);
        }
    };
    let translation = translate(&theirs);
    for name in &translation.unknown {
        eprintln!("{name}: no setting of iRedAPD");
    }
    for remark in &translation.remarks {
        eprintln!("{remark}");
    }
    println!("{}", serde_json::Value::Object(translation.settings));
    if translation.unknown.is_empty() && translation.remarks.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
