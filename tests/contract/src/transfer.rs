//! What every store must do whose content can be moved.
//!
//! An adapter runs all cases with [`transfer_contract!`](crate::transfer_contract), each against a store of its own.

pub mod samples;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{HoldError, Purpose, Row, Storage, StorageError, StoreContent, Table};

/// A store of one test: empty, and without a schema.
#[async_trait]
pub trait TransferFixture: Send + Sync {
    /// Holds it.
    async fn hold(&self, purpose: Purpose) -> Result<Arc<dyn StoreContent>, HoldError>;

    /// Opens it as a service does.
    async fn open(&self) -> Result<Storage, StorageError>;

    /// Lets somebody else work on it, who makes it if it is not there.
    async fn somebody_runs(&self, statement: &'static str);

    /// The tables and columns that its migrations made, and no table that belongs to the database or to the migrations.
    async fn columns(&self) -> BTreeSet<(String, String)>;
}

/// How often it is looked whether something came about, and how long in between.
const LOOKS: usize = 3_000;
const GLANCE: Duration = Duration::from_millis(10);

/// Runs every case of the contract as a test of its own. `$fixture` is the path of an `async fn() -> Option<impl TransferFixture>`; it
/// returns `None`, loudly, where the machine lacks what the store needs.
#[macro_export]
macro_rules! transfer_contract {
    (@cases $fixture:path: $($case:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let Some(fixture) = $fixture().await else {
                return;
            };
            $crate::transfer::$case(&fixture).await;
        })+
    };
    ($fixture:path) => {
        $crate::transfer_contract!(@cases $fixture:
            every_table_and_column_of_the_schema_is_named,
            a_store_without_a_schema_says_so_and_gets_one,
            what_somebody_else_made_is_named,
            rows_of_all_kinds_come_back_as_they_were_put,
            each_row_is_told_once_over_many_pages,
            what_is_not_kept_is_gone,
            a_store_that_a_service_has_open_is_not_held,
            a_store_that_is_held_is_neither_opened_nor_held_again,
            a_store_that_was_let_go_is_opened_again,
            a_rehearsal_makes_no_schema,
        );
    };
}

/// `tables` MUST name every table and column of the schema.
pub async fn every_table_and_column_of_the_schema_is_named(fixture: &dyn TransferFixture) {
    let content = filled(fixture).await;
    let named: BTreeSet<(String, String)> = content
        .tables()
        .iter()
        .flat_map(|table| {
            let columns = table.columns.iter();
            columns.map(|column| (table.name.to_owned(), column.name.to_owned()))
        })
        .collect();
    content.close().await;
    assert_eq!(named, fixture.columns().await);
}

/// `schema` MUST report 0 for a store without a schema.
pub async fn a_store_without_a_schema_says_so_and_gets_one(fixture: &dyn TransferFixture) {
    let content = hold(fixture, Purpose::Fill).await;
    let before = content.schema().await.expect("an answer");
    assert_eq!(before.applied, 0);
    assert!(0 < before.wanted);
    content.create_schema().await.expect("the migrations run");
    let after = content.schema().await.expect("an answer");
    assert_eq!(after.applied, after.wanted);
    content.close().await;
}

/// `relations` MUST name what is no part of the schema, and MUST name nothing where nobody made anything.
pub async fn what_somebody_else_made_is_named(fixture: &dyn TransferFixture) {
    let relations = async || {
        let content = hold(fixture, Purpose::Rehearse).await;
        let relations = content.relations().await.expect("names");
        content.close().await;
        relations
    };
    assert_eq!(relations().await, Vec::<String>::new());
    fixture.somebody_runs("CREATE TABLE orders (id INTEGER)").await;
    fixture
        .somebody_runs("CREATE VIEW numbers AS SELECT id FROM orders")
        .await;
    assert_eq!(relations().await, ["numbers", "orders"]);

    let content = filled(fixture).await;
    let mut expected: BTreeSet<String> = content.tables().iter().map(|table| table.name.to_owned()).collect();
    expected.extend(["numbers", "orders"].map(str::to_owned));
    content.close().await;
    assert_eq!(BTreeSet::from_iter(relations().await), expected);
}

/// `rows` MUST tell what was put, also before it is kept, in the order of the bytes of its primary key.
pub async fn rows_of_all_kinds_come_back_as_they_were_put(fixture: &dyn TransferFixture) {
    let content = filled(fixture).await;
    for table in content.tables() {
        // From the last to the first: their order must come from the store.
        let rows = samples::rows(table).into_iter().rev().collect();
        content.put(table, rows).await.expect(table.name);
        assert_eq!(all(&*content, table).await, samples::rows(table), "{}", table.name);
    }
    content.keep().await.expect("the transaction ends");
    content.close().await;

    let content = hold(fixture, Purpose::Read).await;
    for table in content.tables() {
        let expected = samples::rows(table);
        assert_eq!(content.count(table).await.expect("a number"), expected.len() as u64);
        assert_eq!(all(&*content, table).await, expected, "{}", table.name);
    }
    content.close().await;
}

/// `rows` MUST tell each row once.
pub async fn each_row_is_told_once_over_many_pages(fixture: &dyn TransferFixture) {
    let content = filled(fixture).await;
    let (leases, events) = (table(&*content, "leases"), table(&*content, "operation_events"));
    let many = samples::leases(2 * leases.page + 7);
    content.put(leases, many.clone()).await.expect("rows are added");
    assert_eq!(all(&*content, leases).await, many);
    let operations = table(&*content, "operations");
    content
        .put(operations, samples::rows(operations))
        .await
        .expect("rows are added");
    // Exactly whole pages, and a key of two columns.
    let many = samples::events(2 * events.page);
    content.put(events, many.clone()).await.expect("rows are added");
    assert_eq!(all(&*content, events).await, many);
    content.close().await;
}

/// `put` MUST store nothing before `keep`, and `settle` MUST keep nothing.
pub async fn what_is_not_kept_is_gone(fixture: &dyn TransferFixture) {
    let content = filled(fixture).await;
    let leases = table(&*content, "leases");
    content
        .put(leases, samples::rows(leases))
        .await
        .expect("rows are added");
    content.settle().await.expect("it is no end");
    content.close().await;

    let content = hold(fixture, Purpose::Read).await;
    for table in content.tables() {
        assert_eq!(content.count(table).await.expect("a number"), 0, "{}", table.name);
    }
    content.close().await;
}

/// A hold MUST be refused while a service has the store open, idle or not.
pub async fn a_store_that_a_service_has_open_is_not_held(fixture: &dyn TransferFixture) {
    filled(fixture).await.close().await;
    let service = fixture.open().await.expect("a store");
    // As each service does.
    let wakes = service.wakes.listen();
    for purpose in [Purpose::Read, Purpose::Fill, Purpose::Rehearse] {
        let mut looks = 0;
        loop {
            match fixture.hold(purpose).await {
                Err(HoldError::InUse { .. }) => break,
                Err(error) => assert_eq!(error.to_string(), "in use"),
                // It may not have listened yet.
                Ok(content) => content.close().await,
            }
            looks += 1;
            assert!(looks < LOOKS, "{purpose:?} is possible all the time");
            tokio::time::sleep(GLANCE).await;
        }
    }
    // What works beside a service goes on working.
    let command = fixture.open().await.expect("a store");
    command.tokens.list().await.expect("a look-up");
    command.admin.close().await;
    drop(wakes);
    service.admin.close().await;
    drop(service);
    hold(fixture, Purpose::Read).await.close().await;
}

/// Whoever opens or holds a held store MUST be refused.
pub async fn a_store_that_is_held_is_neither_opened_nor_held_again(fixture: &dyn TransferFixture) {
    for purpose in [Purpose::Fill, Purpose::Read] {
        let content = match purpose {
            Purpose::Fill | Purpose::Rehearse => filled(fixture).await,
            Purpose::Read => hold(fixture, purpose).await,
        };
        let opened = fixture.open().await;
        let error = opened.err().expect("it is held");
        assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("migrate-data"), "{error}");
        for other in [Purpose::Fill, Purpose::Read, Purpose::Rehearse] {
            let held = fixture.hold(other).await;
            let error = held.err().expect("it is held");
            assert!(matches!(error, HoldError::InUse { .. }), "{error:?}");
        }
        content.close().await;
    }
}

/// `close` MUST let others open the store again.
pub async fn a_store_that_was_let_go_is_opened_again(fixture: &dyn TransferFixture) {
    let content = filled(fixture).await;
    content.close().await;
    let service = fixture.open().await.expect("nobody holds it");
    service
        .leases
        .hold("keeper", "a", Duration::from_secs(60))
        .await
        .expect("it can be written");
    service.admin.close().await;
    content
        .count(table(&*content, "leases"))
        .await
        .expect_err("it was let go");
}

/// A rehearsal MUST NOT make or change anything.
pub async fn a_rehearsal_makes_no_schema(fixture: &dyn TransferFixture) {
    let content = hold(fixture, Purpose::Rehearse).await;
    assert_eq!(content.schema().await.expect("an answer").applied, 0);
    content.close().await;
    let content = hold(fixture, Purpose::Fill).await;
    assert_eq!(content.schema().await.expect("an answer").applied, 0);
    content.close().await;
}

/// Waits where a session that ended is still known to a server for a moment.
async fn hold(fixture: &dyn TransferFixture, purpose: Purpose) -> Arc<dyn StoreContent> {
    let mut looks = 0;
    loop {
        match fixture.hold(purpose).await {
            Ok(content) => return content,
            Err(HoldError::InUse { .. }) if looks < LOOKS => looks += 1,
            Err(error) => assert_eq!(error.to_string(), "held"),
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// The store with its schema, to be filled.
async fn filled(fixture: &dyn TransferFixture) -> Arc<dyn StoreContent> {
    let content = hold(fixture, Purpose::Fill).await;
    if content.schema().await.expect("an answer").applied == 0 {
        content.create_schema().await.expect("the migrations run");
    }
    content
}

fn table(content: &dyn StoreContent, name: &str) -> &'static Table {
    let found = content.tables().iter().find(|table| table.name == name);
    found.expect("a table of this name")
}

async fn all(content: &dyn StoreContent, table: &'static Table) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| table.key_of(row).to_vec());
        let more = content.rows(table, after).await.expect("rows");
        assert!(more.len() <= table.page, "{} are more than a page", more.len());
        if more.is_empty() {
            return rows;
        }
        rows.extend(more);
    }
}
