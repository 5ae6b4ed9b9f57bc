# Functions for the tests of the kernel module.
sys=/sys/kernel/kho
ring=/sys/kernel/kho_ring
modules=/lib/modules/$KHO_RELEASE/updates

# fact NAME: value of NAME in the module's status.
fact() {
	sed -n "s/^$1: //p" $sys/status
}

# ring_is FIRST PAST: the ring holds exactly the records FIRST to PAST - 1, each "NUMBER record".
ring_is() {
	[ "$(cat $ring/counter)" = "$2" ]
	number=$1
	while read -r found text; do
		[ "$found $text" = "$number record" ]
		number=$((number + 1))
	done <$ring/ring
	[ "$number" = "$2" ]
}

# ring_add COUNT: adds COUNT records.
ring_add() {
	for _ in $(seq "$1"); do echo record >$ring/add; done
}

# Joined by &&: in a condition, the shell would ignore a check that fails before the last one.
thawed() {
	[ "$(cat $sys/active)" = 0 ] && [ ! -e $sys/dt ] && [ "$(cat $sys/generation)" = 0x0000000000000000 ]
}

frozen() {
	[ "$(cat $sys/active)" = 1 ] && [ "$(wc -c <$sys/dt)" -gt 100 ] &&
		[ "$(cat $sys/generation)" != 0x0000000000000000 ]
}

mem_total() {
	awk '/^MemTotal/ {print $2}' /proc/meminfo
}
