//! A secret in every place where one can be, and none of them where somebody could see it.

#![cfg(test)]

mod canaries;
mod configuration;
mod walk;

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use canaries::Canaries;
use knm_test_support::collector::{Collector, Manner};
use knm_test_support::issuer::OpenIdIssuer;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, run};
use knm_test_support::tls::Authority;
use serde_json::{Value, json};
use walk::Visit;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const CLUSTERS: &str = "/api/v1/clusters";
const EAST: &str = "/api/v1/clusters/east";
const NODES: &str = "/api/v1/nodes";

#[test]
fn lines_of_text_have_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("knm.db");
    let mut canaries = Canaries::default();
    let password = canaries.secret("the password of a database that is not used");
    let url = format!("sqlite://{}", database.display());
    // Errors tell most in this mode.
    let variables = [
        ("LOG_FORMAT", "text"),
        ("SERVER_MODE", "debug"),
        ("DATABASE_URL", &url),
        ("DB_PASSWORD", &password),
    ];
    visit(canaries, &variables, &|| file_of(&database));
}

#[test]
fn lines_of_bunyan_have_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("knm.db");
    let url = format!("sqlite://{}", database.display());
    let variables = [("LOG_FORMAT", "bunyan"), ("DATABASE_URL", url.as_str())];
    visit(Canaries::default(), &variables, &|| file_of(&database));
}

#[test]
fn lines_of_json_and_rows_of_postgresql_have_no_secret() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let database = server.create_database();
    let mut canaries = Canaries::default();
    let password = canaries.secret("the password of the database");
    server.run(
        &database,
        &format!("CREATE ROLE nodes SUPERUSER LOGIN PASSWORD '{password}'"),
    );
    let url = format!("postgres://nodes:{password}@127.0.0.1:{}/{database}", server.port());
    let variables = [("LOG_FORMAT", "json"), ("DATABASE_URL", url.as_str())];
    let wrong = url.replace(&password, &canaries.secret("a wrong password of the database"));
    for url in [
        wrong,
        url.replace(&database, "nowhere"),
        format!("{url}?sslmode=require"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let variables = [("DATABASE_URL", url.as_str()), ("PORT", "0"), ("LOG_LEVEL", "debug")];
        for arguments in [&["serve"][..], &["migrate"], &["token", "list"]] {
            refused(&mut canaries, folder.path(), arguments, &variables);
        }
    }
    visit(canaries, &variables, &|| {
        let tables = server.run(&database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
        assert!(tables.contains("tokens"), "{tables}");
        let rows = |table: &str| server.run(&database, &format!("SELECT t::text FROM \"{table}\" t"));
        tables.lines().map(rows).collect::<Vec<_>>().join("\n")
    });
}

/// All bytes of an SQLite database.
fn file_of(database: &Path) -> String {
    let files = ["", "-wal", "-shm"].map(|end| fs::read(format!("{}{end}", database.display())).unwrap_or_default());
    assert!(!files[0].is_empty(), "there is a database");
    files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// What a command that works prints; all that it writes is noted.
fn printed(canaries: &mut Canaries, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let (works, printed) = told(canaries, folder, arguments, variables);
    assert!(works, "{arguments:?}");
    printed
}

/// The same of a command that does not.
fn refused(canaries: &mut Canaries, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) {
    let (works, printed) = told(canaries, folder, arguments, variables);
    assert!(!works, "{arguments:?}: {printed}");
}

/// Whether a command works, and what it prints; all that it writes is noted.
fn told(canaries: &mut Canaries, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let output = run(PROGRAM, folder, arguments, variables);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    canaries.see(&format!("stderr of {arguments:?}"), err);
    // What makes secrets prints them, once; all others are looked at.
    if !matches!(
        arguments,
        ["token", "create" | "generate", ..] | ["secrets", "generate-key"]
    ) {
        canaries.see(&format!("stdout of {arguments:?}"), out.as_str());
    }
    (output.status.success(), out.trim().to_owned())
}

/// Runs the service with secrets in all places, does everything that it can do, and looks for them; `stored` is what the database has.
fn visit(mut canaries: Canaries, variables: &[(&str, &str)], stored: &dyn Fn() -> String) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = printed(&mut canaries, folder, &["token", "generate"], &[]);
    canaries.hide("the first token", &first[21..]);
    let key = printed(&mut canaries, folder, &["secrets", "generate-key"], &[]);
    canaries.hide("the key", key.split_once(':').unwrap().1);
    let [first_file, key_file] = ["first", "keys"].map(|name| folder.join(name).display().to_string());
    fs::write(&first_file, &first).unwrap();
    fs::write(&key_file, &key).unwrap();
    let issuer = OpenIdIssuer::start();
    let collector = Collector::start(Manner::Takes);
    let (endpoint, headers_file) = (collector.endpoint(), folder.join("headers").display().to_string());
    let sent = canaries.secret("the token for the collector");
    fs::write(&headers_file, format!("authorization: Bearer {sent}\n")).unwrap();
    let mut all = vec![
        ("KNM__TRACES__OTLP_ENDPOINT", endpoint.as_str()),
        ("KNM__TRACES__HEADERS_FILE", &headers_file),
        ("LOG_LEVEL", "debug"),
        (
            "KNM__CLUSTERS",
            "[{name: demo, source: {demo: {nodes: 12, changes_per_second: 0}}}]",
        ),
        ("KNM__AUTH__MODE", "tokens,oidc"),
        ("KNM__AUTH__BOOTSTRAP_TOKEN_FILE", &first_file),
        ("KNM__AUTH__OIDC_ISSUER", issuer.url()),
        ("KNM__AUTH__OIDC_AUDIENCES", "ours"),
        ("KNM__AUTH__OIDC_RULES", "sub=alice -> operator"),
        ("KNM__SECRETS__KEY_FILE", &key_file),
        ("KNM__REGISTRATION__ALLOW_LOOPBACK", "true"),
    ];
    all.extend(variables);
    let mut service = Service::start(PROGRAM, &[], &all);
    service.wait_until_ready();
    service.wait_for_status("/health/ready", 200);

    let create = ["token", "create", "--name", "cli", "--role", "admin", "--force"];
    let token = printed(&mut canaries, folder, &create, &all);
    canaries.hide("a token of the command line", &token[21..]);
    let mut visit = Visit {
        service: &service,
        canaries,
        token,
    };
    sign_in_by_openid(&mut visit, &issuer);
    register(&mut visit);
    refused_registrations(&mut visit);
    visit.walk();
    mistakes(&mut visit, &first);
    attack(&mut visit);
    for (accept, path) in [
        ("application/json", "/api/v1/audit?limit=1000"),
        ("application/x-ndjson", "/api/v1/audit"),
        ("application/json", "/api/v1/tokens"),
        ("text/plain", "/metrics"),
    ] {
        let reply = visit.ask("GET", path, &[&format!("accept: {accept}")], None);
        assert_eq!(reply.status, 200, "{path}");
    }
    let mut canaries = visit.canaries;
    for arguments in [
        &["config", "show"][..],
        &["token", "list"],
        &["secrets", "rotate"],
        &["migrate"],
    ] {
        printed(&mut canaries, folder, arguments, &all);
    }
    canaries.see("the database while it is used", stored());
    service.signal("-HUP");
    service.signal("-TERM");
    assert!(service.wait().success());
    canaries.see("the database afterwards", stored());
    let spans = collector.spans();
    assert!(50 < spans.len(), "{}", spans.len());
    canaries.see("what the collector was told", format!("{spans:?}"));
    let lines = service.lines();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("DEBUG") || line.contains("\"level\":20"))
    );
    assert!(200 < lines.len() && 200 < canaries.seen());
    canaries.see("the log", lines.join("\n"));
    let leaks = canaries.leaks();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

fn sign_in_by_openid(visit: &mut Visit<'_>, issuer: &OpenIdIssuer) {
    let claims = |canaries: &mut Canaries, what: &str| {
        let nonce = canaries.secret(what);
        json!({"aud": "ours", "sub": "alice", "exp": 4_000_000_000_u64, "nonce": nonce})
    };
    let good = issuer.token(&claims(&mut visit.canaries, "a claim"));
    let list = visit
        .ask("GET", "/api/v1/clusters/demo/nodes?limit=1", &[], None)
        .json();
    let labels = format!(
        "/api/v1/clusters/demo/nodes/{}/labels",
        list["items"][0]["name"].as_str().unwrap()
    );
    let mut expired = claims(&mut visit.canaries, "a claim of a token that has run out");
    expired["exp"] = json!(1);
    let expired = issuer.token(&expired);
    let forged = OpenIdIssuer::start().token(&claims(&mut visit.canaries, "a claim of a forged token"));
    for (what, token, status) in [
        ("an identity token", good, 200),
        ("an identity token that has run out", expired, 401),
        ("a forged identity token", forged, 401),
    ] {
        visit.canaries.hide(what, token.rsplit('.').next().unwrap());
        let header = format!("authorization: Bearer {token}");
        let body = json!({"set": {"team": "storage"}});
        let reply = visit.ask_as("PATCH", &labels, &[&header, "idempotency-key: openid"], Some(&body));
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
    }
}

fn kubeconfig(cluster: &Value, user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "robot"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "robot", "user": user}],
    })
    .to_string()
}

/// Registers clusters at a port where nobody listens, in every way, and gives one of them other credentials.
fn register(visit: &mut Visit<'_>) {
    let server = json!({"server": "https://127.0.0.1:1"});
    let certified = Authority::new().certify(2100);
    visit.canaries.hide("the key of a client", &certified.key);
    let broken = visit.canaries.secret("a key of a client that is none");
    let broken = format!("-----BEGIN PRIVATE KEY-----\n{broken}\n-----END PRIVATE KEY-----\n");
    let by_key = |key: &str| {
        let [certificate, key] = [&certified.certificate, key].map(|text| STANDARD.encode(text));
        json!({"client-certificate-data": certificate, "client-key-data": key})
    };
    let mut token = |what: &str| visit.canaries.secret(what);
    let by_token = |token: &str| json!({"token": token});
    let bodies = [
        json!({"name": "east", "kubeconfig": kubeconfig(&server, &by_token(&token("a token in a kubeconfig")))}),
        json!({"name": "key", "kubeconfig": kubeconfig(&server, &by_key(&certified.key))}),
        json!({"name": "broken", "kubeconfig": kubeconfig(&server, &by_key(&broken))}),
        json!({"name": "plain", "server": "https://127.0.0.1:1", "token": token("a token beside a server")}),
    ];
    let replacements = [
        json!({"kubeconfig": kubeconfig(&server, &by_token(&token("another token in a kubeconfig")))}),
        json!({"kubeconfig": kubeconfig(&server, &by_key(&certified.key))}),
        json!({"server": "https://127.0.0.1:1", "token": token("another token beside a server")}),
    ];
    for body in &bodies {
        let key = format!("idempotency-key: register {}", body["name"]);
        visit.ask("POST", &format!("{CLUSTERS}?dry_run=true"), &[], Some(body));
        for _ in 0..2 {
            let made = visit.ask("POST", CLUSTERS, &[&key], Some(body));
            assert!(made.status == 201 || body["name"] == "broken", "{}", made.text());
        }
    }
    for (number, body) in replacements.iter().enumerate() {
        let replaced = visit.ask(
            "PUT",
            EAST,
            &[&format!("idempotency-key: replace-{number}")],
            Some(body),
        );
        assert_eq!(replaced.status, 200, "{}", replaced.text());
    }
    for cluster in ["east", "key", "broken", "plain"] {
        for path in ["", "/nodes", "/summary"] {
            visit.ask("GET", &format!("{CLUSTERS}/{cluster}{path}"), &[], None);
        }
        visit.ask("POST", &format!("{CLUSTERS}/{cluster}/test"), &[], None);
    }
}

/// What is refused is not repeated, whatever is wrong with it.
fn refused_registrations(visit: &mut Visit<'_>) {
    let server = json!({"server": "https://127.0.0.1:1"});
    let mut secret = |what: &str| visit.canaries.secret(what);
    let password = json!({"username": "robot", "password": secret("a password in a kubeconfig")});
    let exec = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "login", "args": [secret("an argument of a plugin")],
        "env": [{"name": "PASSWORD", "value": secret("a variable of a plugin")}],
    }});
    let provider = json!({"auth-provider": {"name": "oidc", "config": {"refresh-token": secret("a refresh token")}}});
    let of_user = [
        password,
        exec,
        provider,
        json!({"token": secret("a token with a blank") + " x"}),
        json!({"token": [secret("a token in a list")]}),
        json!({"client-key-data": secret("a key that is no base64") + "!", "client-certificate-data": "x"}),
        json!({"token": secret("a token beside a key"), "client-key-data": "eA==", "client-certificate-data": "eA=="}),
        json!({secret("an unknown key"): 1}),
    ];
    let mut bodies: Vec<Value> = of_user
        .iter()
        .map(|user| json!({"name": "refused", "kubeconfig": kubeconfig(&server, user)}))
        .collect();
    let in_url = format!("https://robot:{}@127.0.0.1:1", secret("a password in a URL"));
    let proxy =
        json!({"server": "https://127.0.0.1:1", "proxy-url": format!("http://a:{}@proxy", secret("of a proxy"))});
    bodies.extend([
        json!({"name": "refused", "server": in_url, "token": "x"}),
        json!({"name": "refused", "kubeconfig": kubeconfig(&json!({"server": in_url}), &json!({"token": "x"}))}),
        json!({"name": "refused", "kubeconfig": kubeconfig(&proxy, &json!({"token": "x"}))}),
        json!({"name": "refused", "kubeconfig": format!("users: [{}: {{", secret("in broken yaml"))}),
        json!({"name": "refused", "kubeconfig": secret("in no kubeconfig")}),
        json!({"name": "refused", "context": secret("in a context"), "kubeconfig": kubeconfig(&server, &json!({}))}),
        json!({"name": "refused", "server": "https://127.0.0.1:1", "certificate_authority": secret("in an authority"), "token": "x"}),
        json!({"name": "refused", "token": {"x": secret("a token in an object")}}),
        json!({"name": "refused", "kubeconfig": {"users": [{"user": {"token": secret("in a kubeconfig that is no text")}}]}}),
        json!({secret("a key of the body"): 1}),
        json!(secret("a body that is a text")),
    ]);
    for body in &bodies {
        let mut of_east = body.clone();
        if let Some(table) = of_east.as_object_mut() {
            table.remove("name");
        }
        for (method, path, body) in [("POST", CLUSTERS, body), ("PUT", EAST, &of_east)] {
            let refused = visit.ask(method, path, &[], Some(body));
            assert!((400..500).contains(&refused.status), "{method}: {}", refused.text());
        }
    }
}

/// Tokens where people put them although they do not belong there.
fn mistakes(visit: &mut Visit<'_>, first: &str) {
    for (method, path) in [
        ("DELETE", format!("/api/v1/tokens/{first}")),
        ("GET", format!("/api/v1/clusters?token={first}")),
        ("GET", format!("/api/v1/clusters?access_token={first}")),
    ] {
        let reply = visit.ask(method, &path, &[], None);
        assert!([404, 422].contains(&reply.status), "{path}: {}", reply.text());
    }
    let variables = [("LOG_LEVEL", "debug")];
    let folder = tempfile::tempdir().unwrap();
    refused(
        &mut visit.canaries,
        folder.path(),
        &["token", "revoke", first],
        &variables,
    );
}

/// Whoever guesses gets to know nothing, and what is guessed is nobody's business: it may be a good credential of somewhere else.
fn attack(visit: &mut Visit<'_>) {
    let mut secret = |what: &str| visit.canaries.secret(what);
    let basic = STANDARD.encode(format!("admin:{}", secret("a password of basic authentication")));
    let almost = format!("knm_0123456789abcdef_{}", "5eC4a7".repeat(12));
    let lines: Vec<Vec<String>> = vec![
        vec![format!("authorization: Bearer {}", secret("a guessed token"))],
        vec![format!("authorization: Basic {basic}")],
        vec![format!("authorization: Token {}", secret("a token of another scheme"))],
        vec![format!("authorization: {}", secret("a token without a scheme"))],
        vec![format!(
            "authorization: bearer  {}",
            secret("a token behind two blanks")
        )],
        vec![format!(
            "authorization: Bearer {} x",
            secret("a token with something behind it")
        )],
        vec![format!(
            "authorization: Bearer \u{e4}{}",
            secret("a token that is no text")
        )],
        vec![
            format!("authorization: Bearer {}", secret("one of two tokens")),
            format!("authorization: Bearer {}", secret("the other of two tokens")),
        ],
        vec![format!("authorization: Bearer {almost}")],
        vec![format!(
            "proxy-authorization: Basic {}",
            secret("a password of a proxy")
        )],
        vec![format!("cookie: session={}", secret("a cookie"))],
        vec![format!("x-api-key: {}", secret("a key in another header"))],
        vec![format!(
            "sec-websocket-protocol: bearer, {}",
            secret("a token of a web socket")
        )],
    ];
    visit.canaries.hide("a token that is almost one", &almost[21..]);
    let in_path = secret_path(visit);
    for lines in &lines {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let refused = visit.ask_as("GET", NODES, &lines, None);
        assert!(
            [400, 401, 429].contains(&refused.status),
            "{lines:?}: {}",
            refused.text()
        );
    }
    for path in in_path {
        let refused = visit.ask_as("GET", &path, &[], None);
        assert!([401, 404, 429].contains(&refused.status), "{path}: {}", refused.text());
    }
}

/// Tokens in URLs, as services take them that do not care.
fn secret_path(visit: &mut Visit<'_>) -> [String; 2] {
    let secret = visit.canaries.secret("a token in a query");
    [
        format!("{NODES}?access_token={secret}"),
        format!("/api/v1/tokens?token={secret}"),
    ]
}
