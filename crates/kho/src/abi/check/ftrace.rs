//! The rules of `/ftrace`.

use super::{Check, Stop};
use crate::abi::ftrace::{
    CONFIGURED, CPU, FTRACE_ARRAY_V1, FTRACE_CPU_V1, FTRACE_HOP_V1, FTRACE_META_V1, INSTANCE,
    KEEP_HOPS, KMSG_V1, LIMIT, MAX_NAME, MAX_SUB_BUFFER, RELEASE, SUB_BUFFER, TraceHop, TraceKind,
    TracePart, Traces,
};
use crate::abi::numbered::is_numbered;
use crate::abi::{BLAKE3, COMPATIBLE, HOP, ProblemKind, SIZE, TAKEN, Unknown};
use crate::addr::PAGE_SIZE;
use crate::ranges::push;
use crate::tree::{Node, Value};
use alloc::vec::Vec;

impl<'a> Check<'a, '_, '_> {
    /// Reads `/ftrace` and everything below it. Nodes of unknown versions are left alone.
    pub(super) fn traces(
        &mut self,
        node: Node<'a>,
        tree_hop: Option<u64>,
        unknown: &mut Vec<Unknown<'a>>,
    ) -> Result<Option<Traces<'a>>, Stop> {
        let limit = self.u64(node, LIMIT)?;
        let keep_hops = self.read(node, KEEP_HOPS, Value::u32)?;
        if keep_hops == Some(0) {
            self.report(node, ProblemKind::KeepHops)?;
        }
        let mut hops: Vec<TraceHop<'a>> = Vec::new();
        for child in node.children() {
            if !self.known(child, FTRACE_HOP_V1, unknown)? {
                continue;
            }
            let Some(hop) = self.trace_hop(child, tree_hop, unknown)? else {
                continue;
            };
            self.named(child, "hop", hop.hop)?;
            if hops.last().is_some_and(|before| before.hop >= hop.hop) {
                self.report(child, ProblemKind::HopOrder { hop: hop.hop })?;
            }
            push(&mut hops, hop)?;
        }
        Ok((|| {
            Some(Traces {
                limit: limit?,
                keep_hops: keep_hops?,
                configured: node.prop(CONFIGURED).is_some(),
                hops,
            })
        })())
    }

    /// Whether a node is of the version `wanted`. A node of another version is added to `unknown`.
    fn known(
        &mut self,
        node: Node<'a>,
        wanted: &str,
        unknown: &mut Vec<Unknown<'a>>,
    ) -> Result<bool, Stop> {
        let Some(compatible) = self.str(node, COMPATIBLE)? else {
            return Ok(false);
        };
        if compatible == wanted {
            return Ok(true);
        }
        let leave = Unknown {
            node,
            in_blobs: false,
            compatible,
        };
        push(unknown, leave)?;
        Ok(false)
    }

    /// Checks that the name of a node is `prefix-number`.
    fn named(&mut self, node: Node<'a>, prefix: &'static str, number: u64) -> Result<(), Stop> {
        if is_numbered(node.name(), prefix, number) {
            return Ok(());
        }
        self.report(node, ProblemKind::NodeName { prefix, number })
    }

    fn trace_hop(
        &mut self,
        node: Node<'a>,
        tree_hop: Option<u64>,
        unknown: &mut Vec<Unknown<'a>>,
    ) -> Result<Option<TraceHop<'a>>, Stop> {
        let hop = self.u64(node, HOP)?;
        if let (Some(arrived), Some(hop)) = (hop, tree_hop)
            && (arrived == 0 || arrived > hop)
        {
            self.report(node, ProblemKind::TraceHop { arrived, hop })?;
        }
        let release = self.text(node, RELEASE)?;
        let taken = self.u64(node, TAKEN)?;
        let mut parts = Vec::new();
        let mut arrays = 0u64;
        for child in node.children() {
            let kind = match (child.name(), self.str(child, COMPATIBLE)?) {
                (_, None) => continue,
                ("meta", Some(FTRACE_META_V1)) => TraceKind::Meta,
                ("log", Some(KMSG_V1)) => TraceKind::Log,
                (_, Some(FTRACE_ARRAY_V1)) => {
                    self.named(child, "array", arrays)?;
                    arrays = arrays.saturating_add(1);
                    self.trace_array(child, unknown, &mut parts)?;
                    continue;
                }
                (_, Some(compatible)) => {
                    let leave = Unknown {
                        node: child,
                        in_blobs: false,
                        compatible,
                    };
                    push(unknown, leave)?;
                    continue;
                }
            };
            if let Some(part) = self.trace_part(child, kind)? {
                push(&mut parts, part)?;
            }
        }
        Ok((|| {
            Some(TraceHop {
                hop: hop?,
                release: release?,
                taken: taken?,
                parts,
            })
        })())
    }

    fn trace_array(
        &mut self,
        node: Node<'a>,
        unknown: &mut Vec<Unknown<'a>>,
        parts: &mut Vec<TracePart<'a>>,
    ) -> Result<(), Stop> {
        let Some(array) = self.str(node, INSTANCE)? else {
            return Ok(());
        };
        if array.len() > MAX_NAME || array.contains(char::is_control) || array.contains('/') {
            self.report(node, ProblemKind::ArrayName { len: array.len() })?;
        }
        for child in node.children() {
            if !self.known(child, FTRACE_CPU_V1, unknown)? {
                continue;
            }
            let cpu = self.read(child, CPU, Value::u32)?;
            let sub_buffer = self.read(child, SUB_BUFFER, Value::u32)?;
            let (Some(cpu), Some(sub_buffer)) = (cpu, sub_buffer) else {
                continue;
            };
            self.named(child, "cpu", u64::from(cpu))?;
            let kind = TraceKind::Cpu {
                array,
                cpu,
                sub_buffer,
            };
            let part = self.trace_part(child, kind)?;
            let size = part.map_or(0, |part| part.size);
            let right = sub_buffer.is_power_of_two()
                && u64::from(sub_buffer) >= PAGE_SIZE
                && sub_buffer <= MAX_SUB_BUFFER
                && size.is_multiple_of(u64::from(sub_buffer));
            if !right {
                self.report(child, ProblemKind::SubBuffer { sub_buffer, size })?;
            }
            if let Some(part) = part {
                push(parts, part)?;
            }
        }
        Ok(())
    }

    fn trace_part(
        &mut self,
        node: Node<'a>,
        kind: TraceKind<'a>,
    ) -> Result<Option<TracePart<'a>>, Stop> {
        let size = self.u64(node, SIZE)?;
        let mem = self.sized_mem(node, size)?;
        let blake3 = self.read(node, BLAKE3, Value::array)?;
        Ok((|| {
            Some(TracePart {
                kind,
                size: size?,
                blake3: blake3?,
                mem: mem?,
            })
        })())
    }
}
