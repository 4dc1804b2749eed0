//! The server's certificates: errors in plain words, renewal, and client certificates.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::*;
use crate::message::ClientName;
use crate::tls::{ClientFiles, DevelopmentFiles};

fn files(made: &DevelopmentFiles) -> config::Tls {
    config::Tls { cert: made.cert.clone(), key: made.key.clone(), ..config::Tls::default() }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = ["1", "2"].map(|name| DevelopmentFiles::inside(&folder.path().join(name)));
    for files in [&one, &two] {
        files.make(&["localhost".into()], false).expect("made");
    }
    let load = |cert: &Path, key: &Path| {
        let files = config::Tls { cert: cert.to_owned(), key: key.to_owned(), ..config::Tls::default() };
        ServerTls::load(&files, None, None).map(|_| ())
    };
    assert!(matches!(load(&one.cert, &two.key), Err(TlsError::Shared(SharedError::Unusable { .. }))));
    fs::write(&two.cert, "no certificate").expect("written");
    assert!(matches!(load(&two.cert, &two.key), Err(TlsError::Shared(SharedError::Empty { .. }))));
    assert!(matches!(load(&one.cert, Path::new("/nonexistent")), Err(TlsError::Shared(SharedError::Read { .. }))));
}

#[test]
fn only_changed_and_usable_files_make_new_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = DevelopmentFiles::inside(folder.path());
    made.make(&["localhost".into()], false).expect("made");
    let (mut tls, _) = ServerTls::load(&files(&made), None, None).expect("loaded");
    assert!(tls.reload(Cause::Changed).is_none(), "they are as they were");
    made.make(&["localhost".into()], true).expect("made");
    assert!(tls.reload(Cause::Changed).is_some(), "both are new");
    assert!(tls.reload(Cause::Requested).is_none(), "and known by now");

    let good = fs::read(&made.key).expect("the key");
    fs::remove_file(&made.key).expect("removed");
    assert!(tls.reload(Cause::Changed).is_none(), "the key is gone");
    fs::write(&made.key, &good).expect("written");
    assert!(tls.reload(Cause::Changed).is_none(), "and back");
    fs::write(&made.cert, "no certificate").expect("written");
    assert!(tls.reload(Cause::Requested).is_none(), "the certificate is not one");
    made.make(&["localhost".into()], true).expect("made");
    assert!(tls.reload(Cause::Changed).is_some(), "a mistake does not last");
}

#[test]
fn a_certificate_out_of_its_time_replaces_no_valid_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = DevelopmentFiles::inside(folder.path());
    made.make(&["localhost".into()], false).expect("made");
    let (mut tls, _) = ServerTls::load(&files(&made), None, None).expect("loaded");
    let good = fs::read(&made.cert).expect("the certificate");
    for (years, why) in [(20, "has expired"), (-20, "is not valid yet")] {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let then = SystemTime::now();
        tls.set_clock(move || if years > 0 { then + 20 * year } else { then - 20 * year });
        made.make(&["localhost".into()], true).expect("made");
        assert!(tls.reload(Cause::Changed).is_none(), "the new one {why}");
        let error = tls.is_in_time(&Contents::read(&tls.files)).expect_err("out of time").to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_ne!(fs::read(&made.cert).expect("the certificate"), good);
    assert!(tls.reload(Cause::Changed).is_none(), "still not");
    let cert = certificates(&fs::read(&made.cert).expect("the certificate"), &made.cert, "--cert").expect("one");
    let (_, own) = X509Certificate::from_der(&cert[0]).expect("a certificate");
    let begins = u64::try_from(own.validity().not_before.timestamp()).expect("after 1970");
    tls.set_clock(move || SystemTime::UNIX_EPOCH + Duration::from_secs(begins));
    assert!(tls.reload(Cause::Changed).is_some(), "from its first second on, without being asked");
}

#[tokio::test]
async fn a_short_lived_certificate_is_replaced_when_its_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = DevelopmentFiles::inside(folder.path());
    made.make(&["localhost".into()], false).expect("made");
    let (mut tls, _) = ServerTls::load(&files(&made), None, None).expect("loaded");
    let told = tls.short_lived();
    let first = told.hash().expect("there is one");
    let ahead = Duration::from_secs(12 * 24 * 60 * 60) - Duration::from_millis(50);
    tls.set_clock(move || SystemTime::now() + ahead);
    tokio::time::timeout(Duration::from_secs(20), tls.outlived()).await.expect("in time");
    assert!(tls.renew().is_some());
    let second = told.hash().expect("there is another");
    assert_ne!(first.sha256, second.sha256);
    assert!(second.not_after > first.not_after);
    let early = tokio::time::timeout(Duration::from_millis(100), tls.outlived()).await;
    assert!(early.is_err(), "it is good for twelve days again");
    // The clock is corrected, so the certificate is from the future.
    tls.set_clock(SystemTime::now);
    tls.outlived().await;
    assert!(tls.renew().is_some());
    assert!(told.hash().is_some_and(|third| third.not_after < second.not_after));
}

#[test]
fn a_short_lived_certificate_follows_the_names_of_the_regular_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = DevelopmentFiles::inside(folder.path());
    made.make(&["localhost".into()], false).expect("made");
    let (mut tls, _) = ServerTls::load(&files(&made), None, None).expect("loaded");
    let told = tls.short_lived();
    let first = told.hash();
    assert!(first.is_some());
    made.make(&["localhost".into()], true).expect("made");
    assert!(tls.reload(Cause::Changed).is_some());
    assert_eq!(told.hash(), first, "nothing is new about it");
    made.make(&["localhost".into(), "192.0.2.7".into()], true).expect("made");
    assert!(tls.reload(Cause::Changed).is_some());
    let second = told.hash();
    assert!(second.is_some() && second != first);
    fs::write(&made.cert, "no certificate").expect("written");
    assert!(tls.reload(Cause::Changed).is_none());
    assert_eq!(told.hash(), second, "nothing changes");
}

#[test]
fn a_change_of_the_clients_authority_ends_stored_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = DevelopmentFiles::inside(folder.path());
    made.make(&["localhost".into()], false).expect("made");
    let clients = ClientFiles::inside(folder.path());
    let name = ClientName::new("Ada").expect("a name");
    clients.make(&name, false).expect("made");
    let files = config::Tls { client_ca: Some(clients.ca.clone()), ..files(&made) };
    for sessions in [None, Some(100)] {
        let (mut tls, _) = ServerTls::load(&files, None, sessions).expect("loaded");
        let known = |tls: &ServerTls, key: &[u8]| match &tls.resumption {
            Resumption::Tickets(tickets) => tickets.decrypt(key).is_some(),
            Resumption::Sessions(sessions) => sessions.get(key).is_some(),
        };
        let key = match &tls.resumption {
            Resumption::Tickets(tickets) => tickets.encrypt(b"a session").expect("a ticket"),
            Resumption::Sessions(sessions) => {
                assert!(sessions.put(b"its key".to_vec(), b"a session".to_vec()));
                b"its key".to_vec()
            }
        };
        made.make(&["localhost".into()], true).expect("made");
        assert!(tls.reload(Cause::Changed).is_some(), "another certificate");
        assert!(known(&tls, &key));
        fs::write(&clients.ca, "no authority").expect("written");
        assert!(tls.reload(Cause::Changed).is_none(), "no authority");
        assert!(known(&tls, &key), "all is as it was");
        clients.make(&name, true).expect("made");
        assert!(tls.reload(Cause::Changed).is_some(), "another authority");
        assert!(!known(&tls, &key));
    }
}
