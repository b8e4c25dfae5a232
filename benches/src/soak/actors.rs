//! Those who do longer things: follow streams, drain, register clusters, make tokens, guess them, export.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::load::{CLUSTER, LATER, Load, is_for_now, spread};
use crate::caller::{Caller, Question};

/// How many follow the fleet at once.
const FOLLOWERS: u64 = 8;
/// How many drain at once.
const DRAINERS: u64 = 2;
/// How long a drain may try.
const DRAIN_SECONDS: u64 = 10;
/// How long an operation may take until it is over: its own time, and that of those before it.
const OPERATION: Duration = Duration::from_secs(60);
/// Those who guess tokens have an address of their own: they are slowed down.
const GUESSING: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 1);

/// Starts all of them.
pub(super) fn start(load: &Arc<Load>, tasks: &mut JoinSet<()>) {
    for number in 0..FOLLOWERS {
        repeat(load, tasks, Duration::from_millis(200), number, follow);
    }
    for number in 0..DRAINERS {
        repeat(load, tasks, Duration::from_secs(1), number, drain);
    }
    repeat(load, tasks, Duration::from_secs(5), 100, operate);
    repeat(load, tasks, Duration::from_millis(250), 200, guess);
    repeat(load, tasks, Duration::from_secs(4), 300, use_new_token);
    repeat(load, tasks, Duration::from_secs(5), 400, export);
    repeat(load, tasks, Duration::from_secs(8), 500, register);
    repeat(load, tasks, Duration::from_secs(6), 600, write_template);
}

/// Does something again and again, with a pause, while the load works.
fn repeat<D>(
    load: &Arc<Load>,
    tasks: &mut JoinSet<()>,
    pause: Duration,
    number: u64,
    act: impl Fn(Arc<Load>, u64) -> D + Send + 'static,
) where
    D: Future<Output = ()> + Send,
{
    let load = Arc::clone(load);
    tasks.spawn(async move {
        for round in number << 32.. {
            if !load.goes_on().await {
                return;
            }
            act(Arc::clone(&load), round).await;
            sleep(pause).await;
        }
    });
}

/// Follows the fleet for one to ten seconds and goes away.
async fn follow(load: Arc<Load>, round: u64) {
    let mut caller = load.caller(&load.tokens.viewer);
    let time = Duration::from_secs(1 + spread(round) % 10);
    let watch = Question::get(format!("{CLUSTER}/watch"));
    let following = caller.follow(&watch, time);
    // Whoever follows goes away when the load rests.
    let streamed = tokio::select! {
        streamed = following => streamed,
        () = load.pauses() => return,
    };
    let outcome = match streamed {
        // It comes again anyway.
        Ok(streamed) if is_for_now(streamed.status) => return load.note_put_off(),
        Ok(streamed) if streamed.status == 200 && !streamed.ended && 0 < streamed.bytes => Ok(()),
        Ok(streamed) => Err(format!("{CLUSTER}/watch: {streamed:?}")),
        Err(failure) => Err(format!("{CLUSTER}/watch: {failure}")),
    };
    load.note("event streams", outcome);
}

/// Drains a node, follows that to its end and gives the node back.
async fn drain(load: Arc<Load>, round: u64) {
    let mut caller = load.caller(&load.tokens.operator);
    let node = load.node(round);
    let at_node = format!("{CLUSTER}/nodes/{node}");
    let options = json!({"ignore_daemonsets": true, "delete_emptydir_data": true, "force": true, "reason": "soaking",
        "timeout_seconds": DRAIN_SECONDS, "on_cancel": "restore"});
    let asked = Question::of(Method::POST, format!("{at_node}/drain"), Some(options));
    let asked = asked.with("idempotency-key", format!("drain-{round}"));
    let Some(accepted) = load.ask(&mut caller, "drains", &asked, &[202, 404]).await else {
        return;
    };
    if accepted.status == 202 {
        follow_operation(&load, &mut caller, accepted.json().unwrap_or_default()).await;
    }
    let free = Question::of(
        Method::POST,
        format!("{at_node}/uncordon"),
        Some(json!({"force": true})),
    );
    load.ask(&mut caller, "uncordons", &free, &[200, 404, 409]).await;
}

/// Changes many nodes by one operation.
async fn operate(load: Arc<Load>, round: u64) {
    let mut caller = load.caller(&load.tokens.operator);
    let body = json!({"kind": "label", "targets": {"label_selector": "pool=worker,soak"}, "reason": "soaking",
        "options": {"set": {"soak-operation": format!("round-{}", round % 1_000)}}, "strategy": {"max_failures": "100%"}});
    let asked = Question::of(Method::POST, format!("{CLUSTER}/operations"), Some(body));
    // Nobody may have the label at the moment.
    if let Some(accepted) = load.ask(&mut caller, "operations", &asked, &[202, 422]).await
        && accepted.status == 202
    {
        follow_operation(&load, &mut caller, accepted.json().unwrap_or_default()).await;
    }
}

/// Follows an operation, which must be over in time, whatever becomes of it: nodes come and go.
async fn follow_operation(load: &Load, caller: &mut Caller, accepted: Value) {
    let path = format!("/api/v1/operations/{}", accepted["id"].as_str().unwrap_or_default());
    let ended = timeout(OPERATION, async {
        loop {
            // The stream ends with the operation.
            let events = Question::get(format!("{path}/events"));
            let streamed = caller.follow(&events, OPERATION).await;
            if streamed.as_ref().is_ok_and(|streamed| is_for_now(streamed.status)) {
                load.note_put_off();
                sleep(LATER).await;
                continue;
            }
            if !streamed.is_ok_and(|streamed| streamed.status == 200) {
                load.note("followed operations", Err(format!("{path}/events cannot be followed")));
                return;
            }
            let shown = load
                .ask(caller, "followed operations", &Question::get(&path), &[200])
                .await;
            let shown = shown.and_then(|shown| shown.json().ok()).unwrap_or_default();
            if ["succeeded", "failed", "cancelled"].contains(&shown["state"].as_str().unwrap_or_default()) {
                return;
            }
            if shown["state"] == "paused" {
                let cancel = Question::of(Method::POST, format!("{path}/cancel"), None);
                load.ask(caller, "cancelled operations", &cancel, &[200, 409]).await;
            }
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    if ended.is_err() {
        load.note(
            "followed operations",
            Err(format!("{path} was not over after {} s", OPERATION.as_secs())),
        );
    }
}

/// Signs in with what is no token: refused, or told to come later.
async fn guess(load: Arc<Load>, round: u64) {
    let guesses = [
        "nonsense".to_owned(),
        format!("knm_{:016x}_{:072x}", spread(round), round),
    ];
    let mut caller = load.stranger(GUESSING, &guesses[round as usize % 2]);
    let question = Question::get("/api/v1/clusters");
    load.ask(&mut caller, "sign-ins refused", &question, &[401, 429]).await;
}

/// Makes a token, signs in with it and revokes it.
async fn use_new_token(load: Arc<Load>, round: u64) {
    let mut admin = load.caller(&load.tokens.admin);
    let body = json!({"name": format!("soak-{round}"), "role": "viewer", "expires_in_days": 1});
    let made = Question::of(Method::POST, "/api/v1/tokens", Some(body));
    let Some(made) = load.ask(&mut admin, "tokens made", &made, &[201]).await else {
        return;
    };
    let made = made.json().unwrap_or_default();
    let mut caller = load.caller(made["secret"].as_str().unwrap_or_default());
    load.ask(&mut caller, "sign-ins", &Question::get("/api/v1/clusters"), &[200])
        .await;
    let path = format!("/api/v1/tokens/{}", made["token"]["id"].as_str().unwrap_or_default());
    let revoke = Question::of(Method::DELETE, path, None);
    load.ask(&mut admin, "tokens revoked", &revoke, &[204]).await;
    let again = Question::get("/api/v1/clusters");
    load.ask(&mut caller, "sign-ins refused", &again, &[401]).await;
}

/// Exports what the audit log got lately: as much each time, however long the run is.
async fn export(load: Arc<Load>, _: u64) {
    let mut caller = load.caller(&load.tokens.viewer);
    let Some(health) = load
        .ask(&mut caller, "health and metrics", &Question::get("/health"), &[200])
        .await
    else {
        return;
    };
    let health = health.json().unwrap_or_default();
    let since = health["timestamp"].as_str().unwrap_or_default().to_owned();
    sleep(Duration::from_secs(10)).await;
    let records = Question::get(format!("/api/v1/audit?from={since}")).with("accept", "application/x-ndjson");
    load.ask(&mut caller, "audit exports", &records, &[200]).await;
}

/// Registers a cluster that nobody can reach, and removes it.
async fn register(load: Arc<Load>, round: u64) {
    let mut admin = load.caller(&load.tokens.admin);
    // Another name each time.
    let name = format!("soak-{}", round & 0xffff_ffff);
    let body = json!({"name": name, "server": "https://127.0.0.1:1", "token": "soaking"});
    let asked = Question::of(Method::POST, "/api/v1/clusters", Some(body));
    if load
        .ask(&mut admin, "clusters registered", &asked, &[201])
        .await
        .is_none()
    {
        return;
    }
    sleep(Duration::from_secs(2)).await;
    let path = format!("/api/v1/clusters/{name}");
    load.ask(&mut admin, "clusters", &Question::get(&path), &[200]).await;
    let remove = Question::of(Method::DELETE, path, None);
    load.ask(&mut admin, "clusters removed", &remove, &[204]).await;
}

/// Writes a new version of a template and looks at what it would change.
async fn write_template(load: Arc<Load>, round: u64) {
    let mut caller = load.caller(&load.tokens.operator);
    let content = |round: u64| json!({"labels": {"team": format!("team-{}", round % 10)}, "description": "soaking"});
    let path = "/api/v1/templates/soak";
    let update = Question::of(Method::PUT, path, Some(content(round)));
    let Some(updated) = load.ask(&mut caller, "templates", &update, &[200, 404]).await else {
        return;
    };
    if updated.status == 404 {
        let mut body = content(round);
        body["name"] = json!("soak");
        let create = Question::of(Method::POST, "/api/v1/templates", Some(body));
        load.ask(&mut caller, "templates", &create, &[201]).await;
    }
    let preview = Question::of(
        Method::POST,
        format!("{path}/preview"),
        Some(json!({"cluster": "demo"})),
    );
    load.ask(&mut caller, "previews", &preview, &[200]).await;
}
