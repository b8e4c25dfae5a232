//! Evictions, and what the API server says to them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use knm_model::ObjectName;
use knm_ports::{EvictOptions, Eviction, PodRef};
use serde_json::{Value, json};

use crate::connection::{Connection, Question, encoded};
use crate::convert::PolicyVersion;
use crate::error::{Failure, is_forbidden, shortened};
use crate::metric::Call;
use crate::wire::{Named, Status};

const EVICT: Call = Call {
    verb: "create",
    resource: "pods/eviction",
};
const DELETE: Call = Call {
    verb: "delete",
    resource: "pods",
};
const DAEMON_SETS: Call = Call {
    verb: "list",
    resource: "daemonsets",
};

/// All DaemonSets.
pub(crate) async fn daemon_sets(connection: &Connection) -> Result<BTreeSet<ObjectName>, Failure> {
    let keep = |wire: Named| {
        Some(ObjectName {
            namespace: wire.metadata.namespace,
            name: wire.metadata.name,
        })
    };
    let (found, _) = connection.list(DAEMON_SETS, "/apis/apps/v1/daemonsets", keep).await?;
    Ok(found.into_iter().collect())
}

/// Asks for the eviction of a pod; `None` if the API server does not know this version of evictions.
/// The body is our own: the one of `kube` misspells the options, which API servers then ignore.
pub(crate) async fn evict(
    connection: &Connection,
    version: PolicyVersion,
    pod: &PodRef,
    options: &EvictOptions,
) -> Result<Option<Eviction>, Failure> {
    let path = format!("{}/eviction", path(pod));
    let question = Question {
        method: Method::POST,
        path: &path,
        body: Some(("application/json", Bytes::from(body(version, pod, options).to_string()))),
    };
    let reply = connection.reply(EVICT, &question).await?;
    let status: Status = serde_json::from_slice(&reply.body).unwrap_or_default();
    // Several budgets are told as a failure in the body of an answer whose own status is a success.
    let code = match StatusCode::from_u16(status.code) {
        Ok(code) if status.status == "Failure" => code,
        _ => reply.code,
    };
    if code == StatusCode::BAD_REQUEST && status.message.contains("no kind \"Eviction\" is registered") {
        return Ok(None);
    }
    if is_forbidden(EVICT, code, &status) {
        return Err(Failure::of_status(EVICT, code, &status));
    }
    let told = told(connection, code, &status, reply.retry_after());
    told.map(Some)
        .ok_or_else(|| Failure::refused(EVICT, reply.code, &reply.headers, &reply.body))
}

/// Deletes a pod.
pub(crate) async fn delete(connection: &Connection, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, Failure> {
    let path = path(pod);
    let mut body = delete_options(pod, options);
    body["apiVersion"] = json!("v1");
    body["kind"] = json!("DeleteOptions");
    let question = Question {
        method: Method::DELETE,
        path: &path,
        body: Some(("application/json", Bytes::from(body.to_string()))),
    };
    let reply = connection.reply(DELETE, &question).await?;
    let status: Status = serde_json::from_slice(&reply.body).unwrap_or_default();
    if is_forbidden(DELETE, reply.code, &status) {
        return Err(Failure::of_status(DELETE, reply.code, &status));
    }
    told(connection, reply.code, &status, reply.retry_after())
        .ok_or_else(|| Failure::refused(DELETE, reply.code, &reply.headers, &reply.body))
}

fn path(pod: &PodRef) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{}",
        encoded(&pod.namespace),
        encoded(&pod.name)
    )
}

fn body(version: PolicyVersion, pod: &PodRef, options: &EvictOptions) -> Value {
    json!({
        "apiVersion": version.as_str(),
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": delete_options(pod, options),
    })
}

fn delete_options(pod: &PodRef, options: &EvictOptions) -> Value {
    let mut delete_options = json!({"preconditions": {"uid": pod.uid}});
    if let Some(seconds) = options.grace_period_seconds {
        delete_options["gracePeriodSeconds"] = json!(seconds);
    }
    if options.dry_run {
        delete_options["dryRun"] = json!(["All"]);
    }
    delete_options
}

/// What an answer means, see [`eviction`]. A server that is busy is left alone by everybody; a budget without room is a matter of one pod.
fn told(connection: &Connection, code: StatusCode, status: &Status, retry_after: Option<Duration>) -> Option<Eviction> {
    let told = eviction(code, status, retry_after);
    if let Some(Eviction::Busy {
        retry_after: Some(time),
    }) = told
    {
        connection.hush(time);
    }
    told
}

/// What an answer means; `None` if it says nothing about the pod.
fn eviction(code: StatusCode, status: &Status, retry_after: Option<Duration>) -> Option<Eviction> {
    let message = || shortened(&status.message, code);
    let says = |text: &str| status.message.contains(text);
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let cause = |kind: &str| causes.into_iter().flatten().find(|cause| cause.reason == kind);
    let told = || {
        let seconds = status.details.as_ref().and_then(|details| details.retry_after_seconds);
        // Kubernetes writes 0 where it knows nothing.
        let seconds = seconds.filter(|seconds| 0 < *seconds).map(Duration::from_secs);
        retry_after.or(seconds)
    };
    Some(match code.as_u16() {
        200..=299 => Eviction::Accepted,
        401 => return None,
        403 if cause("NamespaceTerminating").is_some() => Eviction::NamespaceTerminating,
        403 if says("disruptions allowed is negative") || says("too many evictions not confirmed") => {
            Eviction::Passing { message: message() }
        }
        404 => Eviction::Gone,
        // One when the pod is looked at, the other when it is stored.
        409 if says("UID in the precondition") || says("UID in precondition") => Eviction::Replaced,
        // The pod or its budget changed at the same moment, or the server lost its patience.
        408 | 409 => Eviction::Passing { message: message() },
        429 => match cause("DisruptionBudget") {
            Some(cause) => Eviction::Blocked {
                budget: budget_in(&cause.message),
                message: shortened(&cause.message, code),
                retry_after: told(),
            },
            None => Eviction::Busy { retry_after: told() },
        },
        400..=499 => Eviction::Refused { message: message() },
        500 if says("more than one PodDisruptionBudget") => Eviction::SeveralBudgets { message: message() },
        500..=599 => Eviction::Passing { message: message() },
        _ => return None,
    })
}

/// The name in `The disruption budget web needs 2 healthy pods and has 2 currently`.
fn budget_in(message: &str) -> Option<String> {
    let rest = message.strip_prefix("The disruption budget ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str, cause: Option<(&str, &str)>, retry_after: Option<u64>) -> Status {
        let causes: Vec<_> = cause
            .iter()
            .map(|(reason, message)| json!({"reason": reason, "message": message}))
            .collect();
        let body = json!({"kind": "Status", "status": "Failure", "message": message,
            "details": {"causes": causes, "retryAfterSeconds": retry_after}});
        serde_json::from_value(body).expect("a status")
    }

    fn told(code: u16, status: &Status) -> Option<Eviction> {
        eviction(StatusCode::from_u16(code).expect("a code"), status, None)
    }

    #[test]
    fn accepted_evictions_and_pods_that_are_not_there() {
        for code in [200, 201] {
            assert_eq!(told(code, &Status::default()), Some(Eviction::Accepted));
        }
        assert_eq!(
            told(404, &status("pods \"a\" not found", None, None)),
            Some(Eviction::Gone)
        );
    }

    #[test]
    fn another_pod_under_that_name_is_not_the_one() {
        for uid in [
            "Operation cannot be fulfilled on Pod \"a\": the UID in the precondition (1) does not match the UID in record (2)",
            "Operation cannot be fulfilled on pods \"a\": Precondition failed: UID in precondition: 1, UID in object meta: 2",
        ] {
            assert_eq!(told(409, &status(uid, None, None)), Some(Eviction::Replaced));
        }
        let modified = "Operation cannot be fulfilled on pods \"a\": the object has been modified";
        assert!(matches!(
            told(409, &status(modified, None, None)),
            Some(Eviction::Passing { .. })
        ));
    }

    #[test]
    fn a_budget_without_room_is_named() {
        let needs = "The disruption budget web needs 2 healthy pods and has 2 currently";
        let refusal = "Cannot evict pod as it would violate the pod's disruption budget.";
        for (seconds, retry_after) in [(None, None), (Some(0), None), (Some(10), Some(Duration::from_secs(10)))] {
            let blocked = Eviction::Blocked {
                budget: Some("web".to_owned()),
                message: needs.to_owned(),
                retry_after,
            };
            let status = status(refusal, Some(("DisruptionBudget", needs)), seconds);
            assert_eq!(told(429, &status), Some(blocked));
        }
    }

    #[test]
    fn a_busy_server_blames_no_budget() {
        let busy = status("too many requests", None, Some(3));
        let retry_after = Some(Duration::from_secs(3));
        assert_eq!(told(429, &busy), Some(Eviction::Busy { retry_after }));
        // What the header says comes first.
        let header = Some(Duration::from_secs(7));
        let told = eviction(StatusCode::TOO_MANY_REQUESTS, &busy, header);
        assert_eq!(told, Some(Eviction::Busy { retry_after: header }));
    }

    #[test]
    fn several_budgets_are_permanent() {
        let message =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        let expected = Eviction::SeveralBudgets {
            message: message.to_owned(),
        };
        assert_eq!(told(500, &status(message, None, None)), Some(expected));
    }

    #[test]
    fn a_namespace_that_goes_away_is_told() {
        let cause = Some(("NamespaceTerminating", "namespace team is being terminated"));
        let status = status("unable to create new content", cause, None);
        assert_eq!(told(403, &status), Some(Eviction::NamespaceTerminating));
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for (code, message) in [
            (
                403,
                "poddisruptionbudgets.policy \"web\" is forbidden: pdb disruptions allowed is negative",
            ),
            (
                403,
                "poddisruptionbudgets.policy \"web\" is forbidden: DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            ),
            (504, "couldn't update PodDisruptionBudget \"web\" due to conflicts"),
            (408, "the server lost its patience"),
            (500, "etcdserver: leader changed"),
            (503, "the server is currently unable to handle the request"),
        ] {
            let expected = Eviction::Passing {
                message: message.to_owned(),
            };
            assert_eq!(told(code, &status(message, None, None)), Some(expected));
        }
        for code in [400, 403, 405, 410, 413, 422] {
            let expected = Eviction::Refused {
                message: "no".to_owned(),
            };
            assert_eq!(told(code, &status("no", None, None)), Some(expected), "{code}");
        }
    }

    #[test]
    fn an_answer_that_is_not_about_the_pod_is_an_error() {
        for code in [100, 302, 401] {
            assert_eq!(told(code, &Status::default()), None, "{code}");
        }
    }

    #[test]
    fn the_options_are_sent_under_their_right_names() {
        let pod = PodRef {
            namespace: "team".to_owned(),
            name: "web-1".to_owned(),
            uid: "u".to_owned(),
        };
        let plain = body(PolicyVersion::V1, &pod, &EvictOptions::default());
        assert_eq!(
            (&plain["apiVersion"], &plain["kind"]),
            (&json!("policy/v1"), &json!("Eviction"))
        );
        assert_eq!(plain["metadata"], json!({"name": "web-1", "namespace": "team"}));
        assert_eq!(plain["deleteOptions"], json!({"preconditions": {"uid": "u"}}));
        let options = EvictOptions {
            grace_period_seconds: Some(0),
            dry_run: true,
        };
        let expected = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "dryRun": ["All"]});
        assert_eq!(body(PolicyVersion::V1, &pod, &options)["deleteOptions"], expected);
    }
}
