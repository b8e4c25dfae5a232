use std::fs;

use knm_ports::ManualClock;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// A folder with `tls.crt` and `tls.key`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let (certificate, key) = pair(2030);
        folder.write(&certificate, &key);
        folder
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert_file: self.0.path().join("tls.crt"),
            key_file: self.0.path().join("tls.key"),
        }
    }

    fn write(&self, certificate: &str, key: &str) {
        fs::write(self.files().cert_file, certificate).unwrap();
        fs::write(self.files().key_file, key).unwrap();
    }

    async fn open(&self, now: &str) -> Result<(Tls, Arc<ManualClock>), TlsError> {
        let clock = ManualClock::at(now);
        let tls = Tls::open(self.files(), Arc::<ManualClock>::clone(&clock)).await?;
        Ok((tls, clock))
    }
}

/// A certificate that ends with the second day of that year, and its key.
fn pair(year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    certificate.not_after = date_time_ymd(year, 1, 2);
    (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn served(tls: &Tls) -> (Arc<ServerConfig>, String) {
    let state = tls.state();
    (Arc::clone(&state.config), state.expires.to_string())
}

#[tokio::test]
async fn what_cannot_be_served_is_told_with_its_file() {
    let ((certificate, key), (_, other)) = (pair(2030), pair(2030));
    for (certificate, key, named) in [
        ("", &*key, "tls.crt has no certificate"),
        ("nonsense", &*key, "tls.crt has no certificate"),
        (&*key, &*key, "tls.crt has no certificate"),
        (&*certificate.replace("MII", "AII"), &*key, "tls.crt has no certificate"),
        (&*certificate, "", "tls.key has no private key"),
        (&*certificate, &*certificate, "tls.key has no private key"),
        (&*certificate, &*other, "tls.key"),
    ] {
        let folder = Folder::new();
        folder.write(certificate, key);
        let error = folder.open("2030-01-01T00:00:00Z").await.err().unwrap();
        assert!(error.to_string().contains(named), "{error}");
    }
    for missing in ["tls.crt", "tls.key"] {
        let folder = Folder::new();
        fs::remove_file(folder.0.path().join(missing)).unwrap();
        let error = folder.open("2030-01-01T00:00:00Z").await.err().unwrap();
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test]
async fn changed_files_are_taken_over_and_broken_ones_are_not() {
    let folder = Folder::new();
    let (tls, _) = folder.open("2029-01-01T00:00:00Z").await.unwrap();
    let (first, expires) = served(&tls);
    assert_eq!(expires, "2030-01-02T00:00:00Z");
    tls.look().await;
    assert!(Arc::ptr_eq(&served(&tls).0, &first), "nothing changed");

    let (certificate, key) = pair(2031);
    // Half of the new pair: it does not fit the other half.
    fs::write(folder.files().cert_file, &certificate).unwrap();
    tls.look().await;
    assert!(Arc::ptr_eq(&served(&tls).0, &first));
    folder.write(&certificate, &key);
    tls.look().await;
    let (second, expires) = served(&tls);
    assert_eq!(expires, "2031-01-02T00:00:00Z");

    fs::remove_file(folder.files().key_file).unwrap();
    tls.look().await;
    assert!(Arc::ptr_eq(&served(&tls).0, &second));
    folder.write(&certificate, &key);
    tls.look().await;
    assert_eq!(served(&tls).1, "2031-01-02T00:00:00Z");
}

#[tokio::test]
async fn the_end_is_warned_of_for_fourteen_days_once_a_day() {
    let folder = Folder::new();
    let (tls, clock) = folder.open("2029-12-18T23:59:59Z").await.unwrap();
    let warned = || tls.state().warned.map(|warned| warned.to_string());
    assert_eq!(warned(), None);
    for (seconds, expected) in [
        (1, "2029-12-19T00:00:00Z"),
        (DAY - 1, "2029-12-19T00:00:00Z"),
        (1, "2029-12-20T00:00:00Z"),
        (100 * DAY, "2030-03-30T00:00:00Z"),
    ] {
        clock.advance(Duration::from_secs(seconds));
        tls.look().await;
        assert_eq!(warned().as_deref(), Some(expected));
    }
    let (certificate, key) = pair(2031);
    folder.write(&certificate, &key);
    tls.look().await;
    assert_eq!(warned(), None);
}
