//! The replicas behind a balancer.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::Duration;

use crate::balancer::Balancer;
use crate::service::Service;

/// What the README says is enough.
const POOL: &str = "6";

/// How a replica ended that was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it says about its end.
    pub last_line: String,
}

/// The replicas, the oldest one first.
pub(super) struct Fleet<'a> {
    program: &'a str,
    balancer: &'a Balancer,
    variables: [(&'a str, &'a str); 3],
    replicas: VecDeque<Service>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(program: &'a str, balancer: &'a Balancer, url: &'a str, kubeconfig: &'a str) -> Self {
        let variables = [
            ("DATABASE_URL", url),
            ("KUBECONFIG", kubeconfig),
            ("KNM__DATABASE__MAX_OPEN_CONNS", POOL),
        ];
        Self {
            program,
            balancer,
            variables,
            replicas: VecDeque::new(),
        }
    }

    /// Starts a replica; callers are led to it as soon as it is ready.
    pub(super) fn add(&mut self) {
        let mut variables = self.variables.to_vec();
        variables.push(("KNM__DATABASE__MAX_IDLE_CONNS", POOL));
        let service = Service::start(self.program, &[], &variables);
        service.wait_until_ready();
        self.balancer.add(service.address());
        self.replicas.push_back(service);
    }

    /// Starts a replica and ends the oldest one.
    pub(super) fn replace_oldest(&mut self, pre_stop: Duration, propagation: Duration) -> Stopped {
        self.add();
        let mut oldest = self.replicas.pop_front().expect("there is one");
        // Without a pre-stop sleep the signal is there before the balancer hears of it.
        sleep(propagation.min(pre_stop));
        if pre_stop < propagation {
            oldest.signal("-TERM");
            sleep(propagation - pre_stop);
        }
        self.balancer.remove(oldest.address());
        if propagation <= pre_stop {
            sleep(pre_stop - propagation);
            oldest.signal("-TERM");
        }
        let status = oldest.wait();
        Stopped {
            code: status.code(),
            last_line: oldest.wait_for_line("shutdown 5/5"),
        }
    }
}
