//! One trouble, from before it to after it.

use std::time::Duration;

use http::Method;
use knm_test_support::proxy::Fault;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::ground::{CLUSTER, Ground, Open, PATIENCE};
use super::probing::{Answers, Probe, told};
use super::{COLUMNS, Cell, Measured, Side, Trouble};
use crate::Failure;
use crate::caller::Question;

/// How long an answer of health may take: the deadline of two seconds for the ping, and what a busy machine adds.
const HEALTH: Duration = Duration::from_secs(3);
/// How long a read may take, which waits for nobody.
const READ: Duration = Duration::from_secs(2);
/// How long a change may take until there is an answer: `server.write_timeout`, and what a busy machine adds.
const WRITE: Duration = Duration::from_secs(32);
/// How long it may take after the trouble until a change is made again.
const RECOVERY: Duration = Duration::from_secs(35);
/// How long an operation may take after the trouble: as long as it would have taken without it, and until everything is seen again.
const OPERATION: Duration = Duration::from_secs(60);
/// How many more connections and files there may be afterwards: those that are kept for the next request.
const KEPT: usize = 6;
/// `database.max_open_conns`, and the connection that listens.
const POOL: usize = 26;
/// How long what is idle has before it is counted.
const SETTLING: Duration = Duration::from_secs(5);

/// Runs one trouble.
pub(super) async fn measure(
    ground: &Ground,
    trouble: Trouble,
    number: usize,
    time: Duration,
) -> Result<Measured, Failure> {
    ground.wait_until_well().await?;
    let node = format!("written-{number}");
    let before = ground.open().await?;
    let operation = ground.begin(number).await?;

    let (ended, over) = watch::channel(false);
    let quarter = Duration::from_millis(250);
    let asks = |path: &'static str| move |_| Question::get(path);
    let proxy = ground.proxy(trouble.side);
    proxy.set(trouble.fault);
    let began = Instant::now();
    let live = Probe::start(ground, over.clone(), quarter, asks("/health/live"));
    let ready = Probe::start(ground, over.clone(), quarter, asks("/health/ready"));
    let reads = Probe::start(ground, over.clone(), quarter, asks("/api/v1/clusters/test/nodes"));
    let labels = format!("{CLUSTER}/nodes/{node}/labels");
    let writes = Probe::start(ground, over, Duration::from_millis(500), move |number| {
        write(&labels, &format!("write-{number}"))
    });
    sleep(time).await;
    ended.send_replace(true);
    proxy.set(Fault::None);
    let lifted = Instant::now();
    let again = writes_again(ground, &node, lifted).await?;
    let (live, ready) = (live.end().await?, ready.end().await?);
    let (reads, writes) = (reads.end().await?, writes.end().await?);

    ground.wait_until_well().await?;
    let (state, ended_after) = end_of(ground, &operation, lifted).await?;
    let kept = compare(ground, &node, &writes).await?;
    sleep(SETTLING).await;
    let after = ground.open().await?;
    let cells: [Cell; COLUMNS.len()] = [
        Cell {
            text: live.describe(),
            kept: live.are_all(&[200]) && live.slowest() < HEALTH,
        },
        readiness(trouble, &ready),
        reading(&reads, began),
        Cell {
            text: writes.describe(),
            kept: writes.slowest() < WRITE && writes.0.iter().all(is_answer_or_problem),
        },
        Cell {
            text: format!("{state}, {} after the fault", told(ended_after)),
            kept: ["succeeded", "failed"].contains(&state.as_str()) && ended_after < OPERATION,
        },
        kept,
        Cell {
            text: told(again),
            kept: again < RECOVERY,
        },
        connections(before, after),
    ];
    Ok(Measured { trouble, cells })
}

/// A change of its own: the label says later whether it was made.
fn write(path: &str, label: &str) -> Question {
    let body = json!({"set": {label: "made"}});
    Question::of(Method::PATCH, path, Some(body))
}

/// How long after the trouble the first change is made.
async fn writes_again(ground: &Ground, node: &str, lifted: Instant) -> Result<Duration, Failure> {
    let mut caller = ground.caller();
    let path = format!("{CLUSTER}/nodes/{node}/labels");
    loop {
        let reply = caller.ask(&write(&path, "again")).await;
        let took = lifted.elapsed();
        if reply.is_ok_and(|reply| reply.status == 200) {
            return Ok(took);
        }
        if PATIENCE * 2 < took {
            return Err(format!("no change could be made {} after the trouble", told(took)).into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn readiness(trouble: Trouble, ready: &Answers) -> Cell {
    let right: &[u16] = match trouble.side {
        // No cluster makes it not ready.
        Side::Cluster => &[200],
        // Whether a database that answers late can be used depends on how late.
        Side::Database => &[200, 503],
    };
    // What cannot be used at all must be told before the trouble is over.
    let is_dead = matches!(trouble.fault, Fault::Reset | Fault::HalfOpen | Fault::Stopped);
    let must_tell = trouble.side == Side::Database && is_dead;
    let tells = ready.0.iter().any(|answer| answer.status() == Some(503));
    Cell {
        text: ready.describe(),
        kept: ready.are_all(right) && ready.slowest() < HEALTH && (tells || !must_tell),
    }
}

/// Reads are answered whatever happens; that they are old is said as soon as it is known.
fn reading(reads: &Answers, began: Instant) -> Cell {
    let stale = reads.0.iter().find(|answer| {
        let list = answer.reply.as_ref().and_then(|reply| reply.json().ok());
        list.is_some_and(|list| list["stale"] == true)
    });
    let stale = stale.map_or("not stale".to_owned(), |answer| {
        format!("stale after {}", told(answer.asked.saturating_duration_since(began)))
    });
    Cell {
        text: format!("{}, {stale}", reads.describe()),
        kept: reads.are_all(&[200]) && reads.slowest() < READ,
    }
}

/// Whether a change was made, or refused in words.
fn is_answer_or_problem(answer: &super::probing::Answered) -> bool {
    let Some(reply) = &answer.reply else {
        return false;
    };
    let is_problem = || {
        reply
            .json()
            .is_ok_and(|problem| problem["request_id"].is_string() && problem["title"].is_string())
    };
    reply.status == 200 || (matches!(reply.status, 502..=504) && is_problem())
}

/// Waits for the end of an operation: its state, and how long that was after the trouble.
async fn end_of(ground: &Ground, id: &str, lifted: Instant) -> Result<(String, Duration), Failure> {
    let mut caller = ground.caller();
    loop {
        let reply = caller.ask(&Question::get(format!("/api/v1/operations/{id}"))).await?;
        let operation = reply.json()?;
        let state = operation["state"].as_str().unwrap_or_default().to_owned();
        if !["queued", "running"].contains(&state.as_str()) || OPERATION < lifted.elapsed() {
            return Ok((state, lifted.elapsed()));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Holds what was answered, what is in the cluster and what is in the audit log against each other.
async fn compare(ground: &Ground, node: &str, writes: &Answers) -> Result<Cell, Failure> {
    let labels = ground.labels(node).await;
    let records = ground.records(node).await?;
    let of = |label: &str| -> Vec<&Value> {
        let names = |record: &&Value| record["options"].to_string().contains(&format!("\"{label}\""));
        records.iter().filter(names).collect()
    };
    let (mut accepted, mut made, mut wrong) = (0, 0, Vec::new());
    for (number, answer) in writes.0.iter().enumerate() {
        let label = format!("write-{number}");
        let is_made = labels[&label] == "made";
        let records = of(&label);
        made += usize::from(is_made);
        if answer.status() == Some(200) {
            accepted += 1;
            if !is_made {
                wrong.push(format!("{label} was accepted and not made"));
            }
            if !matches!(records.as_slice(), [record] if record["outcome"] == "succeeded") {
                wrong.push(format!("{label} was accepted and its record is {records:?}"));
            }
        }
        if is_made && records.is_empty() {
            wrong.push(format!("{label} was made without a record"));
        }
    }
    let first = wrong.first().map_or(String::new(), |first| format!(": {first}"));
    Ok(Cell {
        text: format!(
            "{accepted} accepted, {made} made, {} records, {} wrong{first}",
            records.len(),
            wrong.len()
        ),
        kept: wrong.is_empty(),
    })
}

fn connections(before: Open, after: Open) -> Cell {
    let grew = |before: usize, after: usize| before + KEPT < after;
    Cell {
        text: format!(
            "database {} → {}, cluster {} → {}, files {} → {}, {} lent",
            before.database, after.database, before.cluster, after.cluster, before.files, after.files, after.lent
        ),
        // The pool may grow to its size and the one that listens; one may be at work at that moment.
        kept: !grew(before.cluster, after.cluster) && after.database <= POOL && after.lent <= 1.0,
    }
}
