//! A kernel with Kexec HandOver of its own: what it shows is decoded, and held against what it says itself.

use crate::scenario::Scenario;
use kho_lab::kernel::peer;

/// Functions, and what holds on each of these kernels.
const EACH: &str = r#"
D=/sys/kernel/debug/kho
kho dump --mainline >/tmp/state
cat /tmp/state
# The lines of one side; of one entry of a side.
side() { awk -v head="$1:" '/^[a-z]+: / { on = ($1 == head) } on' /tmp/state; }
entry() { side "$1" | awk -v head="  $2:" '/^  [^ ]/ { on = (index($0, head) == 1) } on'; }
# says TEXT: the kernel's log has it.
says() { dmesg | grep -F -e "$1" || { echo "the kernel does not say: $1"; return 1; }; }

# The regions of scratch are those that debugfs lists.
paste -d ' ' $D/out/scratch_phys $D/out/scratch_len | while read -r start len; do
	case $len in
	0x0) side out | grep -x -e "  scratch: empty, at $start" ;;
	*) side out | grep -F "  scratch: [$start-$(printf '0x%x' $((start + len)))) " ;;
	esac
done
[ "$(side out | grep -c '  scratch: ')" = "$(wc -l <$D/out/scratch_phys)" ]
# Every entry has its content, and nothing is left over.
for dir in $D/*/sub_fdts; do
	name=$(basename "$(dirname "$dir")")
	ls "$dir" | sort >/tmp/there
	side "$name" | sed -n 's/^  \([A-Za-z_-]*\): .*, [0-9].*/\1/p' | grep -v -e '^scratch$' | sort | diff /tmp/there -
done
if grep 'not shown' /tmp/state; then exit 1; fi
# LUO frees what arrived once it has read it, and Linux 7.3 goes on showing the memory, whatever is there by then.
if grep 'unknown bytes' /tmp/state | grep -v 'LUO: unknown bytes at'; then exit 1; fi
# What the next kernel will be told.
entry out kexec-metadata | head -1 | grep 'kexec-metadata version 1'
entry out kexec-metadata | grep -F "previous_release = \"$KHO_RELEASE\""
entry out kexec-metadata | grep -x "    kexec_count = $((KHO_HOP + 1))"
"#;

/// On a first boot, whose `out/fdt` there is.
const FIRST: &str = r#"
[ ! -e $D/in ]
side out | head -1 | grep -x 'out: kho-v4'
side out | grep -x '  preserved memory: described at 0x[0-9a-f]*'
status=0
kho validate $D/out/fdt || status=$?
"#;

/// In a kernel that was handed something.
const ARRIVED: &str = r#"
side in | head -1 | grep -x 'in: kho-v4'
side in | grep -x '  preserved memory: described at 0x[0-9a-f]*'
if side in | grep '^  !'; then exit 1; fi
[ "$(side in | grep -c '^  [A-Za-z_-]*: .* at 0x')" -ge 2 ]
status=0
kho validate $D/in/fdt || status=$?
[ "$status" = 62 ]
says "KHO: exec from: $KHO_RELEASE (count $KHO_HOP)"
entry in kexec-metadata | grep -F "previous_release = \"$KHO_RELEASE\""
entry in kexec-metadata | grep -x "    kexec_count = $KHO_HOP"
says "Retrieved live update data, liveupdate number: $KHO_HOP"
entry out LUO | head -1 | grep 'luo-v5'
entry out LUO | grep -x "    liveupdate_num = $((KHO_HOP + 1))"
entry in LUO | head -1 | grep 'at 0x.*, 32 B'
# Scratch is where it was in all kernels before.
kho-guest same scratch <$D/out/scratch_phys
"#;

/// The kernel's own loader takes the kernel's own state along.
const GO: &str = r#"
kho kexec -l -s "$KHO_NEXT_KERNEL" --initrd="$KHO_NEXT_INITRD" --command-line="$KHO_NEXT_CMDLINE"
kho-guest loaded --bare
"#;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "mainline",
            "kho dump --mainline decodes what a mainline kernel with KHO leaves and what its successors find",
        )
        .kernels(&[peer::NAME; 3])
        .append("kho=on liveupdate=on test_kho.max_mem=1048576")
        .first(&format!(
            r#"{EACH}{FIRST}
            # Linux 7.3 shows less of this tree than there is, once subsystems have added to it.
            side out | grep '^  ! the kernel shows 0x'
            [ "$status" = 61 ]
            entry out LUO | head -1 | grep 'luo-v5'
            entry out kho_test | head -1 | grep 'kho-test-v1'
            entry out kho_test | grep -x ' *nr_folios = [1-9][0-9]*'
            kho-guest same scratch <$D/out/scratch_phys
            {GO}"#
        ))
        .at(
            1,
            &format!(
                r#"{EACH}{ARRIVED}
                # What the kernel could restore is what was decoded; it is not handed on.
                says 'KHO restore succeeded'
                entry in kho_test | head -1 | grep 'kho-test-v1 at 0x'
                entry in kho_test | grep -x ' *nr_folios = [1-9][0-9]*'
                {GO}"#
            ),
        )
        .at(2, &format!("{EACH}{ARRIVED}")),
        Scenario::new(
            "mainline-out",
            "kho dump --mainline decodes a tree that a mainline kernel with KHO shows as a whole",
        )
        .kernels(&[peer::NAME])
        // The test module would add to the tree.
        .append("kho=on initcall_blacklist=kho_test_init")
        .first(&format!(
            r#"{EACH}{FIRST}
            if side out | grep '^  !'; then exit 1; fi
            # It is none of ours, and says so.
            [ "$status" = 62 ]
            entry out kexec-metadata | head -1 | grep 'version 1 at 0x'
            kho dump --mainline --json | grep -q '"version": "kho-v4"'"#
        )),
    ]
}
