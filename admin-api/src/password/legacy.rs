//! Old schemes that no crate covers: MD5-crypt, CRAM-MD5 and NTLM.
//!
//! CRAM-MD5 stores the two MD5 states of HMAC-MD5 after the padded key has been taken in (RFC 2195 lets a server keep
//! these instead of the password), which needs the compression function itself; NTLM is MD4 (RFC 1320) of the
//! password in UTF-16LE.

use md5::{Digest, Md5};

use super::digest::encode_hex;

const ITOA64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The 22 characters of MD5-crypt for a password and a salt of at most 8 characters.
pub(super) fn md5_crypt(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(8)];
    let alternate = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut context = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        let piece = left.min(16);
        context.update(&alternate[..piece]);
        left -= piece;
    }
    let mut bits = password.len();
    while bits > 0 {
        // A zero byte for a set bit and the first character of the password otherwise: so it was first written.
        context.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut result = context.finalize();
    for round in 0..1000 {
        let mut context = Md5::new();
        context.update(if round % 2 == 1 { password } else { &result[..] });
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        context.update(if round % 2 == 1 { &result[..] } else { password });
        result = context.finalize();
    }
    let group = |a: usize, b: usize, c: usize| {
        (u32::from(result[a]) << 16) | (u32::from(result[b]) << 8) | u32::from(result[c])
    };
    let mut text = String::with_capacity(22);
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push_itoa64(&mut text, group(a, b, c), 4);
    }
    push_itoa64(&mut text, u32::from(result[11]), 2);
    text
}

fn push_itoa64(text: &mut String, mut value: u32, characters: usize) {
    for _ in 0..characters {
        text.push(char::from(ITOA64[(value & 0x3f) as usize]));
        value >>= 6;
    }
}

/// The stored form of CRAM-MD5: outer and inner state of HMAC-MD5, little endian, hexadecimal.
pub(super) fn cram_md5(password: &[u8]) -> String {
    let mut key = [0_u8; 64];
    if password.len() > 64 {
        key[..16].copy_from_slice(&Md5::digest(password));
    } else {
        key[..password.len()].copy_from_slice(password);
    }
    let state = |pad: u8| {
        let block = key.map(|byte| byte ^ pad);
        md5_compress(START, &block).map(u32::to_le_bytes).concat()
    };
    encode_hex(&[state(0x5c), state(0x36)].concat())
}

/// The stored form of NTLM: MD4 of the password in UTF-16LE, hexadecimal.
pub(super) fn ntlm(password: &str) -> String {
    let wide: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    encode_hex(&md4(&wide))
}

fn words(block: &[u8; 64]) -> [u32; 16] {
    std::array::from_fn(|at| {
        u32::from_le_bytes([block[4 * at], block[4 * at + 1], block[4 * at + 2], block[4 * at + 3]])
    })
}

/// RFC 1321 3.4, one block.
fn md5_compress(state: [u32; 4], block: &[u8; 64]) -> [u32; 4] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let words = words(block);
    let [mut a, mut b, mut c, mut d] = state;
    for step in 0..64_usize {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), (7 * step) % 16),
        };
        // The constants of the RFC are the whole part of 2^32 times |sin(step + 1)|.
        let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
        let sum = a.wrapping_add(mixed).wrapping_add(constant).wrapping_add(words[word]);
        let rotated = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16][step % 4]));
        (a, d, c, b) = (d, c, b, rotated);
    }
    [state[0].wrapping_add(a), state[1].wrapping_add(b), state[2].wrapping_add(c), state[3].wrapping_add(d)]
}

/// RFC 1320.
fn md4(message: &[u8]) -> [u8; 16] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() < message.len() + 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(8 * message.len() as u64).to_le_bytes());
    let mut state = START;
    for block in padded.chunks_exact(64) {
        let block: &[u8; 64] = block.try_into().expect("chunks have the size asked for");
        state = md4_compress(state, block);
    }
    let mut digest = [0; 16];
    for (place, word) in digest.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

fn md4_compress(state: [u32; 4], block: &[u8; 64]) -> [u32; 4] {
    const SHIFTS: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];
    const THIRD: [usize; 16] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];
    let words = words(block);
    let [mut a, mut b, mut c, mut d] = state;
    for step in 0..48_usize {
        let (mixed, word, constant) = match step / 16 {
            0 => ((b & c) | (!b & d), step, 0),
            1 => ((b & c) | (b & d) | (c & d), (step % 4) * 4 + (step % 16) / 4, 0x5a82_7999),
            _ => (b ^ c ^ d, THIRD[step % 16], 0x6ed9_eba1_u32),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(words[word]).wrapping_add(constant);
        let rotated = sum.rotate_left(SHIFTS[step / 16][step % 4]);
        (a, d, c, b) = (d, c, b, rotated);
    }
    [state[0].wrapping_add(a), state[1].wrapping_add(b), state[2].wrapping_add(c), state[3].wrapping_add(d)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md4_of_the_rfc() {
        for (text, digest) in [
            ("", "31d6cfe0d16ae931b73c59d7e0c089c0"),
            ("abc", "a448017aaf21d8525fc10ae87aa6729d"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "043f8582f241db351ce627e153e7f0e4",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "e33b4ddc9c38f2199c3e7b164fcc0536",
            ),
        ] {
            assert_eq!(encode_hex(&md4(text.as_bytes())), digest, "{text}");
        }
    }

    #[test]
    fn the_compression_function_is_that_of_md5() {
        let mut block = [0_u8; 64];
        block[..3].copy_from_slice(b"abc");
        block[3] = 0x80;
        block[56] = 24;
        let digest = md5_compress(START, &block).map(u32::to_le_bytes).concat();
        assert_eq!(digest, Md5::digest(b"abc").to_vec());
    }

    #[test]
    fn known_values() {
        assert_eq!(ntlm("password"), "8846f7eaee8fb117ad06bdd830b7586c");
        assert_eq!(md5_crypt(b"0.s0.l33t", b"deadbeef"), "0Huu6KHrKLVWfqa4WljDE0");
        let stored = "8731ae6e9147de281bf657ef8faa581e2d1296fefbb2e86e5841e277d744c5b0";
        assert_eq!(cram_md5(b"Adm1n#Secret"), stored);
    }
}
