# Functions, and checks for each of these kernels.
D=/sys/kernel/debug/kho
kho dump --mainline >/tmp/state
cat /tmp/state
# side NAME: the lines of one side. entry SIDE NAME: the lines of one entry.
side() { awk -v head="$1:" '/^[a-z]+: / { on = ($1 == head) } on' /tmp/state; }
entry() { side "$1" | awk -v head="  $2:" '/^  [^ ]/ { on = (index($0, head) == 1) } on'; }
# says TEXT: the kernel's log contains TEXT.
says() { dmesg | grep -F -e "$1" || { echo "the kernel does not say: $1"; return 1; }; }

# The decoded regions of scratch are those that debugfs lists.
paste -d ' ' $D/out/scratch_phys $D/out/scratch_len | while read -r start len; do
	case $len in
	0x0) side out | grep -x -e "  scratch: empty, at $start" ;;
	*) side out | grep -F "  scratch: [$start-$(printf '0x%x' $((start + len)))) " ;;
	esac
done
[ "$(side out | grep -c '  scratch: ')" = "$(wc -l <$D/out/scratch_phys)" ]
# Every entry has its content, and no content is left over.
for dir in $D/*/sub_fdts; do
	name=$(basename "$(dirname "$dir")")
	ls "$dir" | sort >/tmp/there
	side "$name" | sed -n 's/^  \([A-Za-z_-]*\): .*, [0-9].*/\1/p' | grep -v -e '^scratch$' | sort | diff /tmp/there -
done
if grep 'not shown' /tmp/state; then exit 1; fi
# LUO frees the arrived memory after reading it, and Linux 7.3 goes on showing that memory with any content.
if grep 'unknown bytes' /tmp/state | grep -v 'LUO: unknown bytes at'; then exit 1; fi
# The metadata for the next kernel.
entry out kexec-metadata | head -1 | grep 'kexec-metadata version 1'
entry out kexec-metadata | grep -F "previous_release = \"$KHO_RELEASE\""
entry out kexec-metadata | grep -x "    kexec_count = $((KHO_HOP + 1))"
