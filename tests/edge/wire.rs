//! Raw bytes to and from a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this long without a byte, the server is told that no more will follow.
const LULL: Duration = Duration::from_millis(30);

/// An answer as it was received.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes on a separate connection and reads all that comes back, until the server closes or nothing more comes.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The server may have answered and closed before it read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(LULL)).unwrap();
    let mut chunk = [0; 16 * 1024];
    let mut is_over = false;
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return answer,
            Ok(length) => answer.extend(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                assert!(!is_over, "the server hangs on {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]));
                if !split(&answer).is_empty() && split(&answer).1.is_empty() {
                    return answer;
                }
                is_over = true;
                let _ = stream.shutdown(Shutdown::Write);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            Err(_) => return answer,
        }
    }
}

/// The whole answers in the bytes, and the bytes that are left over.
pub struct Answers<'a>(pub Vec<Raw>, pub &'a [u8]);

impl Answers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub fn split(mut bytes: &[u8]) -> Answers<'_> {
    let mut answers = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = parsed.parse(bytes) else { return Answers(answers, bytes) };
        let status = parsed.code.unwrap();
        let headers: Vec<(String, Vec<u8>)> =
            parsed.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec())).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap());
        // An answer to HEAD has a length and no body.
        let body = &bytes[head..];
        let body = &body[..length.min(body.len())];
        bytes = &bytes[head + body.len()..];
        if status != 100 {
            answers.push(Raw { status, headers, body: body.to_vec() });
        }
    }
}

/// The highest memory use of the process so far, in bytes.
pub fn most_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}
