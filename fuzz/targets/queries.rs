//! Parameters of lists of nodes, records and operations: one a line.

#![no_main]

use knm_model::{AuditQuery, NodeQuery, OperationQuery, RawAuditQuery, RawNodeQuery, RawOperationQuery};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next();
    let _ = AuditQuery::parse(&RawAuditQuery {
        cluster: next(),
        node: next(),
        actor: next(),
        action: next(),
        outcome: next(),
        from: next(),
        until: next(),
        reason: next(),
        operation: next(),
        limit: next(),
        cursor: next(),
    });
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next();
    let _ = OperationQuery::parse(&RawOperationQuery {
        cluster: next(),
        node: next(),
        kind: next(),
        state: next(),
        actor: next(),
        from: next(),
        until: next(),
        limit: next(),
        cursor: next(),
    });
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next();
    let _ = NodeQuery::parse(&RawNodeQuery {
        label_selector: next(),
        status: next(),
        schedulable: next(),
        role: next(),
        zone: next(),
        taint: next(),
        search: next(),
        sort: next(),
        limit: next(),
        cursor: next(),
        fields: next(),
    });
});
