//! What pods cost, counted by the allocator: the same on every machine.

use std::alloc::System;

use cap::Cap;
use knm_bench::pods::pod;
use knm_domain::PodIndex;

#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

const PODS: usize = 15_000;
/// A tenth of the 90 MiB that 150,000 pods may take.
const MOST: usize = 9 << 20;

/// The only test of this program: another one would be counted, too.
#[test]
fn pods_take_little_memory_and_give_it_back() {
    let before = ALLOCATED.allocated();
    let taken = || ALLOCATED.allocated() - before;
    let mut index = PodIndex::default();
    index.begin();
    (0..PODS).for_each(|number| index.apply(pod(number).unwrap()));
    index.complete();
    let listed = taken();
    assert!(listed <= MOST, "{listed} bytes for {PODS} pods");

    // A list of the same pods costs nothing more.
    index.begin();
    (0..PODS).for_each(|number| index.apply(pod(number).unwrap()));
    index.complete();
    assert!(taken() <= MOST, "{} bytes after another list", taken());

    // All pods are replaced again and again, each time by those of other controllers.
    for round in 1..=10 {
        for number in 0..PODS {
            index.apply(pod(round * PODS + number).unwrap());
            index.delete(&pod((round - 1) * PODS + number).unwrap().uid);
        }
    }
    assert_eq!(index.len(), PODS);
    assert!(taken() <= MOST, "{} bytes after all pods were replaced", taken());

    drop(index);
    assert_eq!(taken(), 0);
}
