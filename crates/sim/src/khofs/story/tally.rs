//! Counts of a story's operations.

/// Counts of the operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Handovers.
    pub hops: u64,
    /// Handovers from a kernel without khofs, a part of `hops`.
    pub without: u64,
    /// Images that were started after an abort of their active phase.
    pub aborted: u64,
    /// Successful activations.
    pub activations: u64,
    /// Activations that failed as expected.
    pub failed_activations: u64,
    /// Instances that arrived and were mounted.
    pub restored: u64,
    /// Instances that were released.
    pub released: u64,
    /// Pages that were written.
    pub written: u64,
    /// Pages that were compared.
    pub compared: u64,
    /// Folios of 2 MiB that were in a file.
    pub folios: u64,
    /// Pages that were lost.
    pub lost: u64,
    /// Operations that were refused as expected.
    pub refused: u64,
    /// Operations for which there was no memory.
    pub no_memory: u64,
    /// Pages that were returned to the system.
    pub given_back: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.hops += other.hops;
        self.without += other.without;
        self.aborted += other.aborted;
        self.activations += other.activations;
        self.failed_activations += other.failed_activations;
        self.restored += other.restored;
        self.released += other.released;
        self.written += other.written;
        self.compared += other.compared;
        self.folios += other.folios;
        self.lost += other.lost;
        self.refused += other.refused;
        self.no_memory += other.no_memory;
        self.given_back += other.given_back;
    }
}
