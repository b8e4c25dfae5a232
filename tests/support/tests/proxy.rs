//! The proxy does to connections what it is told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use knm_test_support::patience::wait_for;
use knm_test_support::proxy::{Fault, Proxy};
use tokio::time::Instant;

/// Something that says back what it hears, until the test ends; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// What comes back for a word.
fn said(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut heard = [0; 5];
    stream.write_all(b"hello")?;
    stream.read_exact(&mut heard)?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[test]
fn everything_passes_and_connections_are_counted() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy).unwrap();
    assert_eq!(said(&mut stream).unwrap(), "hello");
    assert_eq!(proxy.open(), 1);
    drop(stream);
    wait_for("the connection to end", || (proxy.open() == 0).then_some(()));
}

#[test]
fn a_delay_holds_everything_up_in_both_directions() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy).unwrap();
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    let start = Instant::now();
    assert_eq!(said(&mut stream).unwrap(), "hello");
    // It cannot be faster than that, however slow the machine is.
    assert!(Duration::from_millis(400) <= start.elapsed());
}

#[test]
fn a_slow_line_lets_few_bytes_through() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy).unwrap();
    proxy.set(Fault::Slow(100));
    let start = Instant::now();
    stream.write_all(&[7; 50]).unwrap();
    stream.read_exact(&mut [0; 50]).unwrap();
    assert!(Duration::from_millis(400) <= start.elapsed());
}

#[test]
fn a_reset_cuts_off_what_is_open_and_what_comes() {
    let proxy = Proxy::start(echo());
    let mut open = connect(&proxy).unwrap();
    assert_eq!(said(&mut open).unwrap(), "hello");
    proxy.set(Fault::Reset);
    wait_for("the connection to be cut off", || {
        said(&mut open).is_err().then_some(())
    });
    let fresh = connect(&proxy).and_then(|mut stream| said(&mut stream));
    assert!(fresh.is_err(), "{fresh:?}");
    proxy.set(Fault::None);
    wait_for("the line to be well", || {
        connect(&proxy).and_then(|mut stream| said(&mut stream)).ok()
    });
}

#[test]
fn a_half_open_line_accepts_and_never_answers_until_it_is_well() {
    let proxy = Proxy::start(echo());
    proxy.set(Fault::HalfOpen);
    let mut stream = connect(&proxy).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = said(&mut stream).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    proxy.set(Fault::None);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_stopped_line_refuses_and_comes_back_at_the_same_port() {
    let proxy = Proxy::start(echo());
    let mut open = connect(&proxy).unwrap();
    assert_eq!(said(&mut open).unwrap(), "hello");
    proxy.set(Fault::Stopped);
    wait_for("connections to be refused", || {
        connect(&proxy)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            .then_some(())
    });
    wait_for("the open one to end", || said(&mut open).is_err().then_some(()));
    proxy.set(Fault::None);
    wait_for("the line to be well", || {
        connect(&proxy).and_then(|mut stream| said(&mut stream)).ok()
    });
}

#[test]
fn what_is_lost_comes_late() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy).unwrap();
    proxy.set(Fault::Loss);
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(said(&mut stream).unwrap(), "hello");
    }
    assert!(Duration::from_millis(1_400) <= start.elapsed());
}
