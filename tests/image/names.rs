//! A name server that knows one name.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const HEADER: usize = 12;
const ADDRESS: u16 = 1;

/// It answers until the process of the test ends.
pub struct NameServer {
    address: IpAddr,
    asked: Arc<AtomicU32>,
}

impl NameServer {
    /// Starts one for which `name` is this machine, and which knows no other name.
    pub fn start(name: &str) -> Self {
        // The port is fixed, so that tests that run at once need addresses of their own: all of 127.0.0.0/8 is here.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(127, 53, high, low));
        let socket = UdpSocket::bind((address, 53)).expect("the port of name servers, for which one must be root");
        let asked = Arc::new(AtomicU32::new(0));
        let (counter, known) = (Arc::clone(&asked), encoded(name));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, caller)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length], &known) {
                    counter.fetch_add(u32::from(answer.1), Ordering::Relaxed);
                    drop(socket.send_to(&answer.0, caller));
                }
            }
        });
        Self { address, asked }
    }

    /// Where it listens, at the port 53.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How often its name was asked for.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A name as it stands in a message.
fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The answer to a question, and whether it was about the known name; `None` to what is no question.
fn answer(message: &[u8], known: &[u8]) -> Option<(Vec<u8>, bool)> {
    let question = message.get(HEADER..)?;
    let end = question.iter().position(|byte| *byte == 0)? + 1;
    let (name, rest) = question.split_at(end);
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let is_known = name.eq_ignore_ascii_case(known);
    let has_address = is_known && kind == ADDRESS;
    let code = if is_known { 0 } else { 3 };
    // The same id; an answer, recursion is available; one question, perhaps one answer, nothing else.
    let mut answer = vec![
        message[0],
        message[1],
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(has_address),
        0,
        0,
        0,
        0,
    ];
    answer.extend(name);
    answer.extend(rest.get(..4)?);
    if has_address {
        // The name in the question, class IN, for no time, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some((answer, is_known))
}
