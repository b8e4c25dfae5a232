//! Lists of nodes: ready pieces, joined.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use knm_domain::{InventoryError, NodeEntry, Snapshot, SnapshotVersion};
use knm_model::{ClusterName, Cursor, Node, NodeField, NodeQuery, Resources};
use moka::future::Cache;
use poem::Body;

use crate::answer::{Pieces, json};
use crate::compression::{Encoding, compress};
use crate::view::{ClusterStateView, NodeSourceView, NodeView};

/// How many bytes of selected and of compressed lists are kept.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Lists that were made once and are asked for again: selections and compressed lists.
pub(crate) struct Lists {
    selected: Cache<(SnapshotVersion, NodeQuery), Bytes>,
    compressed: Cache<(SnapshotVersion, Encoding), Bytes>,
}

/// What one cluster contributes to a list over all clusters.
pub(crate) type FleetPart = (ClusterName, Result<Arc<Snapshot>, InventoryError>);

impl Lists {
    pub(crate) fn new() -> Self {
        fn cache<K: Hash + Eq + Send + Sync + 'static>() -> Cache<K, Bytes> {
            Cache::builder()
                .max_capacity(KEPT_BYTES / 2)
                .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
                .build()
        }
        Self {
            selected: cache(),
            compressed: cache(),
        }
    }

    /// The list that `query` asks for.
    pub(crate) async fn body(&self, snapshot: &Arc<Snapshot>, query: &NodeQuery) -> Body {
        if query.is_everything() {
            return whole(snapshot).into_body();
        }
        let key = (snapshot.version(), query.clone());
        Body::from(self.selected.get_with(key, async { selected(snapshot, query) }).await)
    }

    /// The whole list, compressed once for all who ask for it.
    pub(crate) async fn compressed(&self, snapshot: &Arc<Snapshot>, encoding: Encoding) -> Body {
        let key = (snapshot.version(), encoding);
        let body = self
            .compressed
            .get_with(key, async { compress(whole(snapshot).into_body(), encoding).await });
        Body::from(body.await)
    }
}

/// Names the state of a list: what is known of the nodes, and what was asked.
pub(crate) fn tag(version: SnapshotVersion, query: &NodeQuery) -> String {
    if query.is_everything() {
        return whole_tag(version);
    }
    format!("W/\"{version}-{:x}\"", hash(query))
}

/// Names the state of a list without any query.
pub(crate) fn whole_tag(version: SnapshotVersion) -> String {
    format!("W/\"{version}\"")
}

/// Names the state of a list over all clusters.
pub(crate) fn fleet_tag(parts: &[FleetPart], query: &NodeQuery) -> String {
    let mut hasher = DefaultHasher::new();
    for (name, part) in parts {
        name.hash(&mut hasher);
        match part {
            Ok(snapshot) => snapshot.version().hash(&mut hasher),
            Err(error) => error.to_string().hash(&mut hasher),
        }
    }
    format!("W/\"{:x}-{:x}\"", hasher.finish(), hash(query))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The JSON of a node, written once.
pub(crate) fn rendered(entry: &NodeEntry) -> &Bytes {
    entry.presented(|entry| json(&NodeView::of(entry.cluster(), entry.node(), entry.requested())))
}

/// Names the state of a node as it is answered alone, strongly: the same tag stands for the same bytes. What its pods ask for comes last,
/// after a `+`: it is no state of the node itself, see [`node_state`].
pub(crate) fn node_tag(snapshot: &Snapshot, entry: &NodeEntry) -> String {
    let version = entry.node().version();
    let state = match snapshot.stale() {
        true => format!("{version}-{}", snapshot.as_of().unix_millis()),
        false => version,
    };
    state_tag(&state, entry.requested())
}

/// Names the state of a node as it will be answered alone once its change is known from watching.
pub(crate) fn changed_tag(node: &Node, requested: Option<&Resources>) -> String {
    state_tag(&node.version(), requested)
}

fn state_tag(state: &str, requested: Option<&Resources>) -> String {
    match requested {
        Some(requested) => format!("\"{state}+{:x}\"", hash(requested)),
        None => format!("\"{state}\""),
    }
}

/// The part of a node's tag that changes of the node depend on: pods come and go without changing it.
pub(crate) fn node_state(tag: &str) -> &str {
    tag.split_once('+').map_or(tag, |(state, _)| state)
}

/// The JSON of a node that is answered alone: that of a list, and whether it may be old.
pub(crate) fn node(snapshot: &Snapshot, entry: &NodeEntry) -> Body {
    let rendered = rendered(entry);
    let open = rendered.slice(..rendered.len().saturating_sub(1));
    let seen = json(&snapshot.stale().then(|| snapshot.as_of()));
    let staleness = format!(",\"stale\":{},\"as_of\":", snapshot.stale());
    Pieces::new([open, staleness.into(), seen, Bytes::from_static(b"}")]).into_body()
}

/// All nodes in the usual order: the blocks as they are.
fn whole(snapshot: &Snapshot) -> Pieces {
    let mut pieces = Vec::with_capacity(snapshot.blocks().len() + 2);
    pieces.push(Bytes::from_static(b"{\"items\":["));
    push_blocks(&mut pieces, snapshot);
    pieces.push(end_of_list(snapshot, snapshot.len(), None));
    Pieces::new(pieces)
}

/// Adds the blocks of `snapshot`; each starts with a comma, which only the very first piece of a list goes without.
fn push_blocks(pieces: &mut Vec<Bytes>, snapshot: &Snapshot) {
    for block in snapshot.blocks() {
        let bytes = block.presented(|entries| {
            let mut joined = BytesMut::with_capacity(entries.iter().map(|entry| rendered(entry).len() + 1).sum());
            for entry in entries {
                joined.put_u8(b',');
                joined.put_slice(rendered(entry));
            }
            joined.freeze()
        });
        pieces.push(match pieces.len() {
            1 => bytes.slice(1.min(bytes.len())..),
            _ => bytes.clone(),
        });
    }
}

fn end_of_list(snapshot: &Snapshot, total: usize, next: Option<&Cursor>) -> Bytes {
    let as_of = json(&snapshot.as_of());
    let mut end = end_of_items(total, next);
    end.put_slice(b",\"as_of\":");
    end.put_slice(&as_of);
    end.put_slice(if snapshot.stale() {
        b",\"stale\":true}"
    } else {
        b",\"stale\":false}"
    });
    end.freeze()
}

fn end_of_items(total: usize, next: Option<&Cursor>) -> BytesMut {
    let next = json(&next.map(Cursor::encode));
    let mut end = BytesMut::new();
    end.put_slice(b"],\"next_cursor\":");
    end.put_slice(&next);
    end.put_slice(format!(",\"total\":{total}").as_bytes());
    end
}

fn selected(snapshot: &Snapshot, query: &NodeQuery) -> Bytes {
    let (page, total, next) = query.select(snapshot.entries(), |entry| (entry.cluster().as_str(), entry.node()));
    let mut list = BytesMut::new();
    list.put_slice(b"{\"items\":[");
    put_items(&mut list, &page, query.fields.as_deref());
    list.put_slice(&end_of_list(snapshot, total, next.as_ref()));
    list.freeze()
}

fn put_items(list: &mut BytesMut, page: &[&Arc<NodeEntry>], fields: Option<&[NodeField]>) {
    for (index, entry) in page.iter().enumerate() {
        if 0 < index {
            list.put_u8(b',');
        }
        match fields {
            None => list.put_slice(rendered(entry)),
            Some(fields) => list.put_slice(&projected(rendered(entry), fields)),
        }
    }
}

/// Only these keys of a node.
pub(crate) fn projected(node: &Bytes, fields: &[NodeField]) -> Bytes {
    let Ok(node) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(node) else {
        return Bytes::from_static(b"{}");
    };
    let kept = fields
        .iter()
        .filter_map(|field| node.get(field.as_str()).map(|value| (field.as_str(), value)));
    let mut picked = BytesMut::new();
    for (index, (key, value)) in kept.enumerate() {
        picked.put_slice(if index == 0 { b"{\"" } else { b",\"" });
        picked.put_slice(key.as_bytes());
        picked.put_slice(b"\":");
        picked.put_slice(&json(value));
    }
    picked.put_u8(b'}');
    picked.freeze()
}

/// A list over all clusters.
pub(crate) fn fleet(parts: &[FleetPart], query: &NodeQuery) -> Body {
    let snapshots: Vec<&Arc<Snapshot>> = parts.iter().filter_map(|(_, part)| part.as_ref().ok()).collect();
    let clusters: Vec<NodeSourceView> = parts.iter().map(part_view).collect();
    let end = |total: usize, next: Option<&Cursor>| {
        let mut end = end_of_items(total, next);
        end.put_slice(b",\"clusters\":");
        end.put_slice(&json(&clusters));
        end.put_u8(b'}');
        end.freeze()
    };
    let mut pieces = vec![Bytes::from_static(b"{\"items\":[")];
    if query.is_everything() {
        for snapshot in &snapshots {
            push_blocks(&mut pieces, snapshot);
        }
        pieces.push(end(snapshots.iter().map(|snapshot| snapshot.len()).sum(), None));
        return Pieces::new(pieces).into_body();
    }
    let entries = snapshots.iter().flat_map(|snapshot| snapshot.entries());
    let (page, total, next) = query.select(entries, |entry| (entry.cluster().as_str(), entry.node()));
    let mut items = BytesMut::new();
    put_items(&mut items, &page, query.fields.as_deref());
    pieces.push(items.freeze());
    pieces.push(end(total, next.as_ref()));
    Pieces::new(pieces).into_body()
}

fn part_view((name, part): &FleetPart) -> NodeSourceView {
    match part {
        Ok(snapshot) => NodeSourceView {
            name: name.to_string(),
            state: match snapshot.stale() {
                true => ClusterStateView::Degraded,
                false => ClusterStateView::Healthy,
            },
            as_of: Some(snapshot.as_of().to_string()),
            stale: snapshot.stale(),
            error: None,
        },
        Err(error) => NodeSourceView {
            name: name.to_string(),
            state: match error {
                InventoryError::NotSeenYet { reason: None, .. } => ClusterStateView::Connecting,
                InventoryError::NotSeenYet { .. }
                | InventoryError::UnknownCluster { .. }
                | InventoryError::UnknownNode { .. }
                | InventoryError::NotAllowed { .. }
                | InventoryError::Cluster { .. } => ClusterStateView::Degraded,
            },
            as_of: None,
            stale: true,
            error: Some(missing(error).to_owned()),
        },
    }
}

/// Why the nodes of a cluster are missing, without anything that a caller may not know.
fn missing(error: &InventoryError) -> &'static str {
    match error {
        InventoryError::NotSeenYet {
            reason: Some(reason), ..
        } => reason.sentence(),
        InventoryError::NotSeenYet { reason: None, .. } => "the cluster was not asked yet",
        InventoryError::UnknownCluster { .. }
        | InventoryError::UnknownNode { .. }
        | InventoryError::NotAllowed { .. }
        | InventoryError::Cluster { .. } => "the cluster did not answer",
    }
}
