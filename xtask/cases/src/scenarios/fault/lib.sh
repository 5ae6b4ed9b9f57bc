# Faults: commands that die, and checks of what they leave behind.

# Settings that a killed command must leave unchanged.
knobs() {
	cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages
	grep -E '^HugePages_(Total|Surp)' /proc/meminfo
}

# steps COMMAND…: the number of steps at which COMMAND can be killed. Runs COMMAND once to completion.
steps() {
	kho-guest kill-at 1000000 -- "$@" >/tmp/steps 2>&1 || [ $? = 3 ]
	sed -n 's/^ended after \([0-9]*\) steps.*Exited.*, 0)$/\1/p' /tmp/steps | grep . || {
		cat /tmp/steps >&2
		return 1
	}
}

# sweep NAME FIRST STRIDE CHECK COMMAND…: kills COMMAND at its steps FIRST, FIRST + STRIDE and so on, and calls CHECK
# after each kill. Ends when COMMAND completes before the step.
points=0
sweep() {
	local name=$1 step=$2 stride=$3 check=$4 got before=$points last=
	shift 4
	knobs >/tmp/knobs-before
	while :; do
		got=0
		kho-guest kill-at $step -- "$@" >/tmp/kill 2>&1 || got=$?
		[ $got != 3 ] || break
		[ $got = 0 ] || {
			cat /tmp/kill
			return 1
		}
		last=$(tail -n 1 /tmp/kill)
		points=$((points + 1))
		# A guest that is silent for long would count as hanging.
		[ $((points % 5)) != 0 ] || echo "$name: $last"
		$check || {
			echo "$name, $last: afterwards $check fails"
			return 1
		}
		knobs >/tmp/knobs-after
		cmp -s /tmp/knobs-before /tmp/knobs-after || {
			echo "$name, $last: left behind"
			diff /tmp/knobs-before /tmp/knobs-after || true
			return 1
		}
		case $last in *reboot*) break ;; esac
		step=$((step + stride))
	done
	echo "$name: killed at $((points - before)) steps, the last: $last"
	kho-guest report "kills.$name" $((points - before))
	[ $points -gt $before ]
}

# address NAME: first address of the arrived blob, decimal.
address() {
	kho dump --json | tr -d ' \n' | sed -n "s/.*\"label\":\"$1\",\"mem\":\[{\"addr\":\([0-9]*\).*/\1/p" | grep .
}
