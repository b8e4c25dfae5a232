//! What a transfer refuses, and in which order it does things.

use std::sync::Mutex;

use knm_ports::{Column, ColumnKind, MockStoreContent, SchemaVersions};

use super::*;

static TABLES: [Table; 1] = [Table {
    name: "registered_clusters",
    columns: &[
        Column {
            name: "name",
            kind: ColumnKind::Text,
        },
        Column {
            name: "key_id",
            kind: ColumnKind::Text,
        },
    ],
    key: 1,
    page: 2,
}];

fn row(name: &str) -> Row {
    vec![Cell::Text(name.to_owned()), Cell::Text("key-1".to_owned())]
}

/// A store with a schema of this version, and these rows.
fn store(place: &'static str, applied: i64, names: &'static [&'static str]) -> MockStoreContent {
    let mut store = MockStoreContent::new();
    store.expect_count().returning(move |_| Ok(names.len() as u64));
    store_but_for_counts(store, place, applied, names)
}

fn store_but_for_counts(
    mut store: MockStoreContent,
    place: &'static str,
    applied: i64,
    names: &'static [&'static str],
) -> MockStoreContent {
    store.expect_place().return_const(place.to_owned());
    store.expect_tables().return_const(&TABLES[..]);
    store
        .expect_schema()
        .returning(move || Ok(SchemaVersions { applied, wanted: 10 }));
    store.expect_misfit().returning(|_, _| None);
    store
        .expect_rows()
        .returning(move |table, after| Ok(page(table, names.iter().map(|name| row(name)), after)));
    store
}

fn page(table: &Table, rows: impl Iterator<Item = Row>, after: Option<Row>) -> Vec<Row> {
    let behind = rows.filter(|row| match (&row[0], after.as_ref().map(|after| &after[0])) {
        (Cell::Text(name), Some(Cell::Text(after))) => after < name,
        _ => true,
    });
    behind.take(table.page).collect()
}

fn transfer(source: MockStoreContent, target: MockStoreContent) -> Transfer {
    Transfer {
        source: Arc::new(source),
        target: Arc::new(target),
        progress: watch::Sender::new(TransferProgress::START),
    }
}

/// A target of the right version with nothing in it.
fn empty_target() -> MockStoreContent {
    let mut target = MockStoreContent::new();
    target.expect_place().return_const("the target".to_owned());
    target.expect_tables().return_const(&TABLES[..]);
    target.expect_schema().returning(|| {
        Ok(SchemaVersions {
            applied: 10,
            wanted: 10,
        })
    });
    target.expect_count().returning(|_| Ok(0));
    target
}

/// A target that loses or changes rows as `damage` says, and is read back.
fn damaged(damage: fn(Vec<Row>) -> Vec<Row>) -> MockStoreContent {
    let stored: Arc<Mutex<Vec<Row>>> = Arc::default();
    let mut target = empty_target();
    target.expect_misfit().returning(|_, _| None);
    let writes = Arc::clone(&stored);
    target.expect_put().returning(move |_, rows| {
        writes.lock().unwrap().extend(damage(rows));
        Ok(())
    });
    target
        .expect_rows()
        .returning(move |table, after| Ok(page(table, stored.lock().unwrap().iter().cloned(), after)));
    target
}

#[tokio::test]
async fn everything_is_moved_read_back_and_then_kept() {
    let source = store("the source", 10, &["a", "b", "c"]);
    let mut target = damaged(|rows| rows);
    target.expect_settle().once().returning(|| Ok(()));
    target.expect_keep().once().returning(|| Ok(()));

    let report = transfer(source, target).run().await.unwrap();

    assert_eq!((report.tables[0].rows, report.schema), (3, 10));
    assert_eq!(report.tables[0].checksum.len(), 64);
    assert!(report.seal_keys.contains("key-1"), "{report:?}");
}

#[tokio::test]
async fn a_target_that_has_something_else_than_was_written_is_not_kept() {
    let lossy: fn(Vec<Row>) -> Vec<Row> = |rows| rows.into_iter().skip(1).collect();
    let wrong: fn(Vec<Row>) -> Vec<Row> = |mut rows| {
        rows[0][1] = Cell::Nothing;
        rows
    };
    for damage in [lossy, wrong] {
        // Keeping is not expected: it would fail the test.
        let error = transfer(store("the source", 10, &["a", "b", "c"]), damaged(damage))
            .run()
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::Differs { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_source_that_counts_more_rows_than_it_tells_is_not_moved() {
    let short = || {
        let mut source = MockStoreContent::new();
        source.expect_count().returning(|_| Ok(4));
        store_but_for_counts(source, "the source", 10, &["a", "b", "c"])
    };
    // Keeping is not expected: it would fail the test.
    let run = transfer(short(), damaged(|rows| rows)).run().await;
    let rehearsed = transfer(short(), damaged(|rows| rows)).rehearse().await;
    for error in [run.unwrap_err(), rehearsed.unwrap_err()] {
        let text = error.to_string();
        assert!(
            text.starts_with("the source counts 4 rows of registered_clusters, and 3 were read"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_rehearsal_reads_everything_and_writes_nothing() {
    // Nothing that writes is expected of the target.
    let mut target = store("the target", 0, &[]);
    target.expect_relations().returning(|| Ok(Vec::new()));
    let transfer = transfer(store("the source", 10, &["a", "b", "c"]), target);

    let report = transfer.rehearse().await.unwrap();

    assert_eq!((report.tables[0].rows, report.is_schema_new), (3, true));
}

#[tokio::test]
async fn other_versions_and_targets_with_content_are_refused_by_name() {
    let cases = [
        (
            9,
            10,
            &[][..],
            "the source has schema version 9, and this program moves version 10: run `kube-node-manager migrate`",
        ),
        (
            11,
            10,
            &[],
            "the source has schema version 11, and this program moves version 10: use the version",
        ),
        (0, 10, &[], "the source has schema version 0"),
        (10, 9, &[], "the target has schema version 9"),
        (10, 12, &[], "the target has schema version 12"),
        (
            10,
            10,
            &["x"],
            "the target is not empty: it has 1 in registered_clusters",
        ),
    ];
    for (source, target, content, expected) in cases {
        let transfer = transfer(
            store("the source", source, &["a"]),
            store("the target", target, content),
        );
        for error in [
            transfer.run().await.unwrap_err(),
            transfer.rehearse().await.unwrap_err(),
        ] {
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn a_target_with_tables_and_no_schema_is_somebody_elses_and_refused_by_name() {
    for (count, expected) in [
        (1, "it has the tables \"t1\", and no schema"),
        (7, "\"t4\", \"t5\" and 2 more, and no schema"),
    ] {
        // Nothing that makes or writes is expected of the target.
        let mut target = store("the target", 0, &[]);
        target
            .expect_relations()
            .returning(move || Ok((1..=count).map(|number| format!("t{number}")).collect()));
        let transfer = transfer(store("the source", 10, &["a"]), target);
        for error in [
            transfer.check().await.unwrap_err(),
            transfer.run().await.unwrap_err(),
            transfer.rehearse().await.unwrap_err(),
        ] {
            assert!(matches!(error, TransferError::NotEmpty { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_named_and_nothing_is_kept() {
    let mut target = empty_target();
    target
        .expect_misfit()
        .returning(|_, _| Some("registered_clusters.name: too odd".to_owned()));

    let error = transfer(store("the source", 10, &["a"]), target)
        .run()
        .await
        .unwrap_err();

    let text = error.to_string();
    assert!(
        text.contains("registered_clusters.name: too odd") && text.contains("\"a\""),
        "{text}"
    );
}

#[tokio::test]
async fn a_target_that_is_lost_while_the_transaction_ends_is_told_apart() {
    let mut target = damaged(|rows| rows);
    target.expect_settle().returning(|| Ok(()));
    target
        .expect_keep()
        .returning(|| Err(StorageError::Unavailable { source: "gone".into() }));
    let error = transfer(store("the source", 10, &["a"]), target)
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Uncertain { .. }), "{error:?}");
}

#[test]
fn values_of_different_kinds_or_borders_never_have_the_same_checksum() {
    let text = |text: &str| Cell::Text(text.to_owned());
    let rows = [
        vec![Cell::Nothing, Cell::Nothing],
        vec![text(""), Cell::Nothing],
        vec![text("ab"), text("c")],
        vec![text("a"), text("bc")],
        vec![Cell::Bytes(b"ab".to_vec()), text("c")],
        vec![Cell::Flag(true), Cell::Nothing],
        vec![Cell::Integer(1), Cell::Nothing],
    ];
    let sums: BTreeSet<String> = rows
        .iter()
        .map(|row| {
            let mut checksum = Checksum::default();
            checksum.add(row);
            checksum.finish()
        })
        .collect();
    assert_eq!(sums.len(), rows.len());
}
