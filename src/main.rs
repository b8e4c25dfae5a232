//! kube-node-manager: the composition root and command line.

fn main() {}
