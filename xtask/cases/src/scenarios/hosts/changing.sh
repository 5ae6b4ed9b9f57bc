# Memory that comes and goes: a module is plugged in, a virtio-mem device grows, a balloon takes memory and gives it back.
mib() { awk -v key="$1:" '$1 == key { print int($2 / 1024) }' /proc/meminfo; }

# grows NAME: the host adds memory; all of it is online afterwards.
grows() {
	before=$(mib MemTotal)
	kho-guest mark "$1"
	within_a_minute grew
	echo "$1: MemTotal grew from $before to $(mib MemTotal) MiB"
}
grew() {
	for block in /sys/devices/system/memory/memory*; do
		[ "$(cat $block/state)" = online ] || echo online >$block/state || true
	done
	[ $(mib MemTotal) -ge $((before + 300)) ]
}
