//! Counts of a story's operations.

/// Counts of the operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Handovers.
    pub hops: u64,
    /// Handovers from a kernel without the module, a part of `hops`.
    pub without_module: u64,
    /// Kernel's parts that arrived and were refused because their phase had ended.
    pub aborted: u64,
    /// Successful activations.
    pub activations: u64,
    /// Activations that failed as expected.
    pub failed_activations: u64,
    /// Nodes that were handed over again because no driver took them.
    pub carried: u64,
    /// Pages that were lent or given to drivers.
    pub lent: u64,
    /// Pages that arrived and that drivers claimed.
    pub claimed: u64,
    /// Nodes that drivers claimed.
    pub nodes: u64,
    /// Nodes that drivers held.
    pub holds: u64,
    /// Pages that were released.
    pub released: u64,
    /// Operations that were refused as expected.
    pub refused: u64,
    /// Number of times that the module was loaded again.
    pub reloads: u64,
    /// Pages whose memory failed.
    pub failed: u64,
    /// Allocations for which there was no memory.
    pub no_memory: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.hops += other.hops;
        self.without_module += other.without_module;
        self.aborted += other.aborted;
        self.activations += other.activations;
        self.failed_activations += other.failed_activations;
        self.carried += other.carried;
        self.lent += other.lent;
        self.claimed += other.claimed;
        self.nodes += other.nodes;
        self.holds += other.holds;
        self.released += other.released;
        self.refused += other.refused;
        self.reloads += other.reloads;
        self.failed += other.failed;
        self.no_memory += other.no_memory;
    }
}
