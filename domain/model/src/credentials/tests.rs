use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const STRICT: AccessRules = AccessRules {
    allow_loopback: false,
    allow_insecure_tls: false,
};
const CANARY: &str = "hunter2";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";

/// A kubeconfig with these lines in its cluster and user.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\ncontexts:\n- name: prod\n  context: {{cluster: east, user: ann, namespace: x}}\n\
         clusters:\n- name: east\n  cluster: {{{cluster}}}\nusers:\n- name: ann\n  user: {{{user}}}\n"
    )
}

fn of_kubeconfig(text: &str) -> RawClusterAccess {
    RawClusterAccess {
        kubeconfig: Some(text.to_owned().into()),
        ..RawClusterAccess::default()
    }
}

fn of_token(token: &str) -> RawClusterAccess {
    RawClusterAccess {
        server: Some("https://10.0.0.1:6443".to_owned()),
        certificate_authority: Some(CERTIFICATE.to_owned()),
        token: Some(token.to_owned().into()),
        ..RawClusterAccess::default()
    }
}

fn refused(raw: &RawClusterAccess) -> String {
    let errors = ClusterCredentials::parse(raw, &STRICT).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let told = told.join("; ");
    assert!(!told.contains(CANARY), "{told}");
    told
}

fn data(text: &str) -> String {
    STANDARD.encode(text)
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn a_kubeconfig_with_a_certificate_is_understood() {
    let text = kubeconfig(
        &format!(
            "server: 'https://10.0.0.1:6443', certificate-authority-data: {}, tls-server-name: api",
            data(CERTIFICATE)
        ),
        &format!(
            "client-certificate-data: {}, client-key-data: {}",
            data(CERTIFICATE),
            data(KEY)
        ),
    );
    let credentials = ClusterCredentials::parse(&of_kubeconfig(&text), &STRICT).unwrap();
    assert_eq!(credentials.server.as_str(), "https://10.0.0.1:6443/");
    assert_eq!(credentials.certificate_authority.as_deref(), Some(CERTIFICATE));
    assert_eq!(
        (credentials.user.as_str(), credentials.tls_server_name.as_deref()),
        ("ann", Some("api"))
    );
    let ClusterIdentity::Certificate { certificate, key } = &credentials.identity else {
        unreachable!("{credentials:?}")
    };
    assert_eq!((certificate.as_str(), key.expose_secret()), (CERTIFICATE, KEY));
    assert!(!format!("{credentials:?}").contains(CANARY));
}

#[test]
fn a_kubeconfig_is_read_in_the_context_that_was_asked_for() {
    let two = kubeconfig("server: 'https://10.0.0.1'", "token: one").replace(
        "contexts:\n",
        "contexts:\n- name: other\n  context: {cluster: west, user: bob}\n",
    );
    let two = two
        .replace(
            "clusters:\n",
            "clusters:\n- name: west\n  cluster: {server: 'https://10.0.0.2'}\n",
        )
        .replace("users:\n", "users:\n- name: bob\n  user: {token: two}\n");
    let raw = RawClusterAccess {
        context: Some("other".to_owned()),
        ..of_kubeconfig(&two)
    };
    let credentials = ClusterCredentials::parse(&raw, &STRICT).unwrap();
    assert_eq!(
        (credentials.server.as_str(), credentials.user.as_str()),
        ("https://10.0.0.2/", "bob")
    );
    let raw = RawClusterAccess {
        context: Some(CANARY.to_owned()),
        ..of_kubeconfig(&two)
    };
    assert!(refused(&raw).contains("context: the kubeconfig has no such context"));
}

#[test]
fn a_server_with_a_token_is_understood_and_its_user_is_the_subject_of_the_token() {
    let credentials = ClusterCredentials::parse(&of_token(&jwt(r#"{"sub":"system:serviceaccount:a:b"}"#)), &STRICT);
    assert_eq!(credentials.unwrap().user, "system:serviceaccount:a:b");
    let credentials = ClusterCredentials::parse(&of_token(CANARY), &STRICT).unwrap();
    assert_eq!(credentials.user, "token");
    assert!(!format!("{:?}", (&credentials, of_token(CANARY))).contains(CANARY));
}

#[test]
fn what_a_kubeconfig_must_not_hold_is_refused_with_its_field_and_the_reason() {
    let server = "server: 'https://10.0.0.1'";
    for (cluster, user, field, reason) in [
        (
            server,
            "exec: {command: hunter2}",
            "users[].user.exec",
            "plugins are not run",
        ),
        (
            server,
            "auth-provider: {name: hunter2}",
            "users[].user.auth-provider",
            "plugins are not run",
        ),
        (
            server,
            "tokenFile: /hunter2",
            "users[].user.tokenFile",
            "files are not read",
        ),
        (
            server,
            "client-certificate: /hunter2, client-key-data: aA==",
            "users[].user.client-certificate",
            "files are not read",
        ),
        (
            server,
            "client-key: /hunter2",
            "users[].user.client-key",
            "files are not read",
        ),
        (
            server,
            "username: ann, password: hunter2",
            "users[].user.password",
            "basic authentication",
        ),
        (server, "token: a, as: hunter2", "users[].user.as", "impersonation"),
        (server, "hunter2: a", "users[].user", "does not know"),
        (server, "token: 12", "users[].user.token", "a text is expected"),
        (server, "token: 'hunter2 '", "users[].user.token", "none of a token"),
        (
            server,
            "token: \"hunter2\\r\\nx\"",
            "users[].user.token",
            "none of a token",
        ),
        (
            server,
            "token: a, client-certificate-data: aA==, client-key-data: aA==",
            "users[].user",
            "not both",
        ),
        (
            server,
            "client-certificate-data: aA==",
            "users[].user.client-key-data",
            "beside the certificate",
        ),
        (
            server,
            "client-key-data: hunter2",
            "users[].user.client-key-data",
            "pem in base64",
        ),
        (
            server,
            "client-certificate-data: aHVudGVyMg==, client-key-data: aHVudGVyMg==",
            "users[].user.client-key-data",
            "not pem",
        ),
        (server, "", "users[].user", "a token, or"),
        (
            "server: 'https://10.0.0.1', certificate-authority: /hunter2",
            "token: a",
            "cluster.certificate-authority",
            "files are not read",
        ),
        (
            "server: 'https://10.0.0.1', proxy-url: 'http://hunter2'",
            "token: a",
            "cluster.proxy-url",
            "proxies",
        ),
        (
            "server: 'https://10.0.0.1', insecure-skip-tls-verify: true",
            "token: a",
            "cluster.insecure-skip-tls-verify",
            "registration.allow_insecure_tls",
        ),
        (
            "server: 'https://10.0.0.1', insecure-skip-tls-verify: hunter2",
            "token: a",
            "cluster.insecure-skip-tls-verify",
            "true or false",
        ),
        (
            "server: 'https://10.0.0.1', tls-server-name: \"a\\nhunter2\"",
            "token: a",
            "cluster.tls-server-name",
            "control characters",
        ),
        ("server: 'http://10.0.0.1'", "token: a", "cluster.server", "only https"),
        (
            "server: 'https://ann:hunter2@10.0.0.1'",
            "token: a",
            "cluster.server",
            "user or password",
        ),
        ("", "token: a", "cluster.server", "expected"),
    ] {
        let told = refused(&of_kubeconfig(&kubeconfig(cluster, user)));
        assert!(
            told.contains(field) && told.contains(reason),
            "{field}, {reason}: {told}"
        );
    }
}

#[test]
fn a_text_that_is_no_kubeconfig_is_not_quoted() {
    for text in [
        "hunter2",
        "",
        "users: [{token: hunter2",
        "- hunter2",
        "a: hunter2\na: hunter2\n",
        "a: *hunter2",
        "current-context: hunter2",
        "{\"current-context\": \"a\", \"contexts\": \"hunter2\"}",
        "current-context: a\ncontexts: [{name: a, context: hunter2}]",
        "current-context: a\ncontexts: [{name: a, context: {cluster: hunter2, user: hunter2}}]",
    ] {
        refused(&of_kubeconfig(text));
    }
    assert!(refused(&of_kubeconfig(&"a".repeat(600_000))).contains("at most"));
}

#[test]
fn a_kubeconfig_that_grows_when_it_is_read_is_refused() {
    let mut bomb = "a0: &a0 [hunter2, hunter2]\n".to_owned();
    for step in 1..40 {
        let before = step - 1;
        bomb.push_str(&format!(
            "a{step}: &a{step} [*a{before}, *a{before}, *a{before}, *a{before}]\n"
        ));
    }
    refused(&of_kubeconfig(&bomb));
    refused(&of_kubeconfig(&"[".repeat(100_000)));
}

#[test]
fn either_way_is_given_whole_and_not_the_other_one() {
    assert!(refused(&RawClusterAccess::default()).contains("either kubeconfig, or server and token"));
    let both = RawClusterAccess {
        token: Some(CANARY.to_owned().into()),
        ..of_kubeconfig("a: b")
    };
    assert!(refused(&both).contains("token: it is not allowed beside kubeconfig"));
    let half = RawClusterAccess {
        server: None,
        token: None,
        ..of_token(CANARY)
    };
    let told = refused(&half);
    assert!(
        told.contains("server: it is expected") && told.contains("token: it is expected"),
        "{told}"
    );
    let context = RawClusterAccess {
        context: Some("a".to_owned()),
        ..of_token(CANARY)
    };
    assert!(refused(&context).contains("context: "));
}

#[test]
fn an_unchecked_certificate_is_allowed_by_the_rules_only_and_never_beside_an_authority() {
    let insecure = RawClusterAccess {
        certificate_authority: None,
        insecure_skip_tls_verify: Some(true),
        ..of_token(CANARY)
    };
    assert!(refused(&insecure).contains("registration.allow_insecure_tls"));
    let rules = AccessRules {
        allow_insecure_tls: true,
        ..STRICT
    };
    let credentials = ClusterCredentials::parse(&insecure, &rules).unwrap();
    assert!(credentials.insecure_skip_tls_verify);
    assert!(
        credentials
            .check(&STRICT)
            .unwrap_err()
            .contains("registration.allow_insecure_tls")
    );
    let both = RawClusterAccess {
        certificate_authority: Some(CERTIFICATE.to_owned()),
        ..insecure
    };
    assert!(ClusterCredentials::parse(&both, &rules).is_err());
}

#[test]
fn what_is_sealed_is_read_back_and_nothing_else_is() {
    let certificate = kubeconfig(
        "server: 'https://10.0.0.1'",
        &format!(
            "client-certificate-data: {}, client-key-data: {}",
            data(CERTIFICATE),
            data(KEY)
        ),
    );
    for raw in [of_token("a\"b"), of_kubeconfig(&certificate)] {
        let credentials = ClusterCredentials::parse(&raw, &STRICT).unwrap();
        let bytes = credentials.to_bytes();
        let again = ClusterCredentials::from_bytes(bytes.expose_secret().as_bytes()).unwrap();
        assert_eq!(again.to_bytes().expose_secret(), bytes.expose_secret());
        assert_eq!(again.server, credentials.server);
    }
    for other in [
        "",
        "{}",
        "[]",
        r#"{"server":"https://10.0.0.1","insecure_skip_tls_verify":false,"user":"a"}"#,
    ] {
        assert_eq!(
            ClusterCredentials::from_bytes(other.as_bytes()).err(),
            Some(UnreadableCredentials)
        );
    }
}

#[test]
fn rules_that_became_stricter_hold_for_what_is_stored() {
    let rules = AccessRules {
        allow_loopback: true,
        ..STRICT
    };
    let raw = RawClusterAccess {
        server: Some("https://127.0.0.1:6443".to_owned()),
        ..of_token(CANARY)
    };
    let credentials = ClusterCredentials::parse(&raw, &rules).unwrap();
    let stored = ClusterCredentials::from_bytes(credentials.to_bytes().expose_secret().as_bytes()).unwrap();
    assert_eq!(stored.check(&rules), Ok(()));
    assert!(stored.check(&STRICT).unwrap_err().contains("loopback"));
}

#[test]
fn a_token_tells_until_when_it_is_good() {
    let expiry = |claims: &str| token_expiry(&jwt(claims)).map(|time| time.to_string());
    assert_eq!(expiry(r#"{"exp":1893456000}"#).as_deref(), Some("2030-01-01T00:00:00Z"));
    for without in [r#"{"exp":"x"}"#, r#"{"exp":-1}"#, r#"{"exp":1e300}"#, "{}", "[]", "x"] {
        assert_eq!(expiry(without), None, "{without}");
    }
    for no_jwt in ["", "a.b", "a.b.c", "a.b.c.d", CANARY] {
        assert_eq!(token_expiry(no_jwt), None, "{no_jwt}");
    }
}

proptest! {
    #[test]
    fn no_kubeconfig_is_too_odd(text in "\\PC{0,200}", cluster in "[a-z:{}\\[\\]'\" -]{0,60}", user in "[a-z:{}\\[\\]'\" -]{0,60}") {
        let _ = ClusterCredentials::parse(&of_kubeconfig(&text), &STRICT);
        let _ = ClusterCredentials::parse(&of_kubeconfig(&kubeconfig(&cluster, &user)), &STRICT);
    }

    #[test]
    fn what_is_sealed_is_opened_as_it_was(token in "[!-~]{1,40}", name in proptest::option::of("[a-z.]{1,20}"), insecure in any::<bool>()) {
        let raw = RawClusterAccess {
            server: Some("https://10.0.0.1".to_owned()),
            token: Some(token.as_str().into()),
            tls_server_name: name,
            insecure_skip_tls_verify: Some(insecure),
            ..RawClusterAccess::default()
        };
        let credentials = ClusterCredentials::parse(&raw, &AccessRules { allow_insecure_tls: true, ..STRICT }).unwrap();
        let shown = format!("{credentials:?}");
        prop_assert!(token.len() < 12 || !shown.contains(&token));
        let sealed = credentials.to_bytes();
        let opened = ClusterCredentials::from_bytes(sealed.expose_secret().as_bytes()).unwrap();
        let again = opened.to_bytes();
        prop_assert_eq!(again.expose_secret(), sealed.expose_secret());
        prop_assert_eq!(opened.check(&STRICT).is_ok(), !insecure);
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_opened(bytes in any::<Vec<u8>>(), text in "\\{(\"(server|token|key)\":(\"[a-z:/]{0,20}\"|null|1),?){0,8}\\}") {
        let _ = ClusterCredentials::from_bytes(&bytes);
        let _ = ClusterCredentials::from_bytes(text.as_bytes());
    }
}

/// Documents that grow when they are read, or go deep: each is refused without being built.
#[test]
fn a_kubeconfig_that_explodes_is_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let merges: String = (1..30)
        .map(|level| format!("b{level}: &b{level} {{<<: [*b{0}, *b{0}], k{level}: 1}}\n", level - 1))
        .collect();
    for text in [
        laughs.clone(),
        laughs + "current-context: c\nusers: *a29\n",
        format!("b0: &b0 {{x: 1}}\n{merges}"),
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        "!".repeat(100_000),
        "&a ".repeat(100_000),
        "\"".to_owned() + &"\\".repeat(100_001),
        "a: *a".to_owned(),
        "&a [*a]".to_owned(),
        "\u{feff}\u{0}".to_owned(),
    ] {
        let refused = ClusterCredentials::parse(&of_kubeconfig(&text), &STRICT).unwrap_err();
        assert!(refused.iter().all(|error| error.to_string().len() < 500), "{refused:?}");
    }
}
