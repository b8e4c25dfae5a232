//! What machines ask all the time, answered before an operation is looked for, at half its cost. Each answer is the one that the operation
//! gives, which stays there for the document and for everybody who asks otherwise.

use std::sync::Arc;

use knm_model::Caller;
use poem::http::header;
use poem::{IntoResponse, Request, Response};

use crate::answer::{is_known, not_modified};
use crate::api::health::liveness;
use crate::{Shared, list};

/// The answer, `None` if the operation must be asked.
pub(crate) fn answer(shared: &Shared, request: &Request) -> Option<Response> {
    match request.uri().path() {
        "/health/live" => Some(liveness(shared).into_response()),
        path => unchanged_list(shared, request, path),
    }
}

/// 304 if the caller asks for the whole list of a cluster and has it already.
fn unchanged_list(shared: &Shared, request: &Request, path: &str) -> Option<Response> {
    if request.uri().query().is_some() || !request.headers().contains_key(header::IF_NONE_MATCH) {
        return None;
    }
    let cluster = path.strip_prefix("/api/v1/clusters/")?.strip_suffix("/nodes")?;
    let caller = request.data::<Arc<Caller>>()?;
    let snapshot = shared.inventory.visible_to(&caller.access).snapshot(cluster).ok()?;
    let tag = list::whole_tag(snapshot.version());
    is_known(&tag, request.headers()).then(|| not_modified(&tag))
}
