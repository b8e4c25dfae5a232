//! What every storage adapter must do.
//!
//! A case is a sentence of a port with MUST. An adapter runs them all with [`storage_contract!`](crate::storage_contract), each against
//! a store of its own.

mod admin;
mod audit;
mod claims;
mod clusters;
mod definitions;
mod holds;
mod idempotency;
mod leases;
mod operations;
mod registered;
mod requests;
mod tokens;
mod wakes;
mod work;

use std::any::Any;

use knm_ports::Storage;

pub use admin::*;
pub use audit::*;
pub use claims::*;
pub use clusters::*;
pub use definitions::*;
pub use holds::*;
pub use idempotency::*;
pub use leases::*;
pub use operations::*;
pub use registered::*;
pub use requests::*;
pub use tokens::*;
pub use wakes::*;
pub use work::*;

/// A store of one test: empty and not migrated.
pub struct StorageFixture {
    /// The store.
    pub storage: Storage,
    /// The same store as another replica opened it; for a store that cannot be shared, a clone.
    pub replica: Storage,
    /// What must live as long as the store: its folder, its server.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl StorageFixture {
    /// The store with its schema.
    async fn migrated(&self) -> &Storage {
        self.storage.admin.migrate().await.expect("the migrations run");
        &self.storage
    }
}

/// Runs every case of the storage contract as a test of its own. `$fixture` is the path of an
/// `async fn() -> Option<StorageFixture>`; it returns `None`, loudly, where the machine lacks what the store needs.
#[macro_export]
macro_rules! storage_contract {
    (@cases $fixture:path: $($case:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let Some(fixture) = $fixture().await else {
                return;
            };
            $crate::storage::$case(&fixture).await;
            fixture.replica.admin.close().await;
            fixture.storage.admin.close().await;
        })+
    };
    // What is done with rows: on a store with a schema, whatever a later version added to it.
    (@rows $fixture:path) => {
        $crate::storage_contract!(@cases $fixture:
            registrations_are_sorted_by_name,
            an_unknown_cluster_is_not_found,
            a_registration_is_returned_as_it_was_stored,
            a_taken_name_is_a_conflict_and_keeps_the_old_registration,
            replacing_changes_the_registration,
            replacing_what_is_not_there_is_an_error_and_adds_nothing,
            removing_takes_only_the_one_away,
            removing_what_is_not_there_is_an_error_and_removes_nothing,
            another_replica_sees_what_was_stored,
            tokens_are_sorted_by_their_time_the_latest_first_and_then_by_id,
            an_unknown_token_is_not_found,
            a_token_is_returned_as_it_was_stored,
            a_taken_id_of_a_token_is_a_conflict_and_keeps_the_old_one,
            a_taken_name_of_a_token_is_a_conflict_and_keeps_the_old_one,
            the_name_of_a_revoked_token_is_free_again,
            revoking_a_token_says_when_and_by_whom,
            revoking_an_unknown_token_is_an_error,
            revoking_a_token_again_changes_nothing,
            the_last_use_of_a_token_only_moves_forward,
            the_use_of_an_unknown_token_changes_nothing,
            registered_clusters_are_sorted_by_name,
            a_registered_cluster_is_returned_as_it_was_stored,
            a_cluster_that_nobody_registered_is_not_found,
            a_taken_name_of_a_registered_cluster_is_a_conflict_and_keeps_the_old_one,
            no_more_clusters_are_registered_than_may_be,
            replacing_a_registered_cluster_keeps_the_time_of_its_registration,
            a_revision_that_is_not_there_is_not_replaced,
            sealing_anew_changes_the_sealed_secret_and_nothing_else,
            what_was_changed_meanwhile_is_not_sealed_anew,
            removing_takes_the_known_revision_away_and_nothing_else,
            the_holds_of_a_node_are_returned_as_they_were_stored,
            a_taken_id_of_a_hold_is_a_conflict_and_keeps_the_old_one,
            ended_holds_are_left_out,
            each_hold_is_known_also_when_it_is_over,
            a_hold_only_moves_forward,
            only_a_hold_that_is_not_ended_is_changed,
            a_hold_that_is_ended_outside_is_told_with_its_end_or_not_at_all,
            a_claimed_key_tells_the_request_and_its_answer,
            keys_of_different_callers_have_nothing_to_do_with_each_other,
            an_expired_key_is_given_away_anew,
            an_abandoned_key_is_given_to_the_same_request_only,
            who_comes_late_changes_nothing_under_a_key,
            a_forgotten_key_is_free_and_an_answered_one_is_not_forgotten,
            only_old_keys_are_removed,
            a_record_is_returned_as_it_was_stored,
            an_unknown_record_is_not_found,
            a_taken_id_is_a_conflict_and_keeps_the_old_record,
            completing_adds_what_came_of_it_and_changes_nothing_else,
            completing_what_is_not_there_is_an_error,
            completing_again_is_a_conflict_and_keeps_the_first_outcome,
            a_page_has_the_latest_records_first_and_no_more_than_its_limit,
            a_page_has_what_the_filter_lets_through,
            texts_in_reasons_have_no_wildcards,
            pages_tell_each_record_once_while_others_come_in,
            giving_up_completes_old_intents_without_an_operation_and_nothing_else,
            removing_takes_the_oldest_records_away_up_to_its_limit,
            records_without_an_outcome_are_never_removed,
            a_lease_is_extended_by_its_owner,
            a_lease_that_ran_out_is_taken_over,
            a_lease_of_another_owner_is_left_as_it_was,
            releasing_gives_a_lease_to_others,
            releasing_what_another_owner_holds_does_nothing,
            an_operation_is_returned_as_it_was_stored,
            by_what_an_operation_may_be_done_is_returned_as_it_was_stored,
            an_unknown_operation_is_not_found,
            a_taken_id_of_an_operation_is_a_conflict_and_nothing_is_stored,
            an_operation_with_thousands_of_nodes_is_stored,
            a_page_of_operations_has_what_the_filter_lets_through,
            a_wish_moves_an_operation_from_the_state_that_it_names,
            resuming_excuses_what_failed_until_then,
            an_operation_that_was_paused_before_it_began_begins_when_it_is_resumed,
            a_request_opens_one_operation,
            of_two_operations_for_one_request_one_is_opened,
            a_request_may_come_again_after_a_day,
            events_are_numbered_from_one_without_a_gap,
            only_operations_that_ended_before_are_removed,
            removed_operations_leave_nothing_and_others_as_they_were,
            no_more_operations_are_removed_than_the_limit,
            the_oldest_operations_are_taken_first,
            an_operation_whose_lease_ran_out_is_taken_over_with_a_higher_epoch,
            only_operations_that_want_work_are_taken,
            what_another_owner_left_behind_is_taken_over,
            what_was_given_back_is_not_taken_over,
            the_leases_of_operations_are_extended,
            a_lease_of_an_operation_that_ran_out_is_not_extended,
            released_operations_are_free_and_those_of_others_stay,
            operations_that_were_handed_over_are_free_and_those_of_others_stay,
            a_late_owner_changes_nothing,
            a_step_from_another_state_changes_nothing,
            a_step_is_written_as_a_whole,
            an_operation_begins_once,
            what_the_owner_before_wrote_is_passed_over,
            a_step_changes_holds_that_are_not_ended,
            a_step_on_thousands_of_nodes_is_written,
            a_step_may_change_the_message_alone,
            a_step_to_a_rest_gives_the_lease_back,
            what_is_not_over_is_counted,
            versions_are_returned_as_they_were_stored,
            a_taken_version_is_a_conflict_and_stays_as_it_was,
            a_list_has_the_latest_version_of_each_definition_that_is_not_deleted,
            templates_and_bindings_of_one_name_are_different_things,
        );
    };
    (@races $fixture:path) => {
        $crate::storage_contract!(@cases $fixture:
            of_several_writers_one_gets_the_name,
            of_several_tokens_one_gets_the_name,
            of_several_writers_one_registers_the_name,
            of_several_writers_one_replaces_a_revision,
            of_several_callers_one_moves_a_hold,
            of_several_callers_one_tells_that_a_hold_was_ended_outside,
            of_several_requests_one_claims_the_key,
            of_several_who_complete_a_record_one_does,
            of_several_owners_one_gets_the_lease,
            of_several_wishes_one_moves_an_operation,
            of_several_owners_one_gets_an_operation,
            of_several_writers_one_adds_a_version,
            who_listens_is_told_of_work_once_it_can_be_read,
            who_listens_is_told_of_events_once_they_can_be_read,
            who_listens_is_told_nothing_of_what_was_not_written,
            who_listens_too_slowly_is_told_that_something_was_missed,
        );
    };
    ($fixture:path) => {
        $crate::storage_contract!(@cases $fixture:
            a_ping_works_before_the_first_migration,
            the_pool_adds_up,
            nothing_is_pending_after_migrating,
            migrating_applies_all_that_was_pending,
            migrating_again_does_nothing,
            two_replicas_migrate_at_once_and_each_migration_is_applied_once,
            whoever_shares_a_store_counts_itself,
            a_closed_store_is_unavailable_to_every_call,
            closing_twice_is_fine,
        );
        $crate::storage_contract!(@rows $fixture);
        $crate::storage_contract!(@races $fixture);
    };
}
