# Machines in a bad state: two commands at once, a full memory, a full file system, a clock that jumps, a read-only root.
case $KHO_HOP in
0)
	keep_tree_and_blob 4

	# Two commands at once: one works, the other one names the one that works, and nothing is lost.
	kho-guest bytes 5000000 --seed 3 >/tmp/x
	for round in 1 2 3; do
		kho keep --name x$round - </tmp/x >/tmp/one 2>&1 &
		other=$!
		got=0
		kho keep --name y$round - </tmp/x >/tmp/two 2>&1 || got=$?
		got2=0
		wait $other || got2=$?
		echo "at once: $got and $got2"
		case $got,$got2 in 0,0 | 0,54 | 54,0) ;; *)
			cat /tmp/one /tmp/two
			false
			;;
		esac
		kept=$(kho keep --list --json | grep -c "\"name\": \"[xy]$round\"")
		[ $kept = $(((got == 0) + (got2 == 0))) ]
	done
	load >/tmp/one 2>&1 &
	other=$!
	got=0
	load >/tmp/two 2>&1 || got=$?
	got2=0
	wait $other || got2=$?
	echo "loads at once: $got and $got2"
	# If one command begins late, the two run one after the other.
	case $got,$got2 in 0,54 | 54,0 | 0,0) ;; *) false ;; esac
	# If one command stops in the middle of its work, the other one is always refused.
	set -- kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "'$KHO_NEXT_CMDLINE'"
	rm -f /tmp/second
	kho-guest kill-at 30 --then "$* >/tmp/two 2>&1 || echo \$? >/tmp/second" -- \
		kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	[ "$(cat /tmp/second)" = 54 ]
	grep -q 'another kho is working' /tmp/two
	for name in x y; do for round in 1 2 3; do kho keep --remove $name$round 2>/dev/null || true; done; done

	# A full /run: the list does not change.
	kho keep --list --json >/tmp/list
	mount -t tmpfs -o size=8m,mode=0755 tmpfs /mnt
	cp -a /run/kho /mnt/kho
	mount --bind /mnt /run
	head -c 100000000 /dev/zero >/run/full 2>/dev/null || true
	refused 'No space left\|full' kho keep --name z - </tmp/x
	refused 'No space left\|full' kho keep /tmp/x
	kho keep --list --json | cmp - /tmp/list
	umount /run
	umount /mnt

	# Too little memory of any kind: kho refuses before it takes any, changes nothing, and the kernel kills no
	# process (the judge of this test would see the OOM killer).
	available() {
		awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo
	}
	# load_refused STATUS WORDS
	load_refused() {
		state >/tmp/before
		got=0
		load >/tmp/out 2>&1 || got=$?
		cat /tmp/out
		echo "with $(available) MiB available a load ends with $got"
		[ $got = "$1" ]
		grep -q "$2" /tmp/out
		state | cmp - /tmp/before
	}
	state() {
		cat /sys/kernel/kexec_loaded /run/kho/*.json
		knobs
	}
	mount -t tmpfs -o size=100% tmpfs /mnt
	fallocate -l $((($(available) - 70) << 20)) /mnt/full
	load_refused 45 'too little free memory to load'
	umount /mnt
	# The kernel's own copy of the image cannot come from a pool of huge pages.
	echo $((($(available) - 120) / 2)) >/proc/sys/vm/nr_hugepages
	[ "$(available)" -lt 190 ]
	load_refused 45 'shrink vm.nr_hugepages'
	got=0
	kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/dev/null 2>&1 || got=$?
	[ $got = 45 ]
	echo 0 >/proc/sys/vm/nr_hugepages
	load
	kho status --json >/dev/null

	# The clock jumps, and the root file system is read-only.
	date -s '1970-01-01 00:00:10' >/dev/null
	kho-guest bytes 1000 --seed 5 | kho keep --name epoch -
	date -s '2105-12-31 23:59:59' >/dev/null
	mount -o remount,ro /
	refused 'Read-only' touch /readonly
	load
	date -s '1999-12-31 23:59:59' >/dev/null
	kho status
	kho-guest loaded
	;;
*)
	date -s '1970-01-01 00:00:10' >/dev/null
	check_tree_and_blob
	kho get epoch | wc -c
	kho-guest bytes 1000 --seed 5 >/tmp/want
	kho get epoch | cmp - /tmp/want
	;;
esac
