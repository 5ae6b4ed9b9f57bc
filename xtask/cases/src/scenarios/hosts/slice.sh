# One of each: a tree and a blob, files on khofs, the ring of a driver, a trace. With UNTRACED set, no trace: kernels that
# are built for tests have no BTF.
ring=/sys/kernel/kho_ring

# Keeps one of each for the next kernel.
hand_over() {
	if [ $KHO_HOP = 0 ]; then
		keep_tree_and_blob 16
		mkdir -p /k
		mount -t khofs none /k -o name=vm
		kho-guest make-tree /k/tree --bytes 8000000 --seed 3
		kho-guest bytes 20000000 --seed 4 >/k/large
		kho-guest hash-tree /k --same khofs
	fi
	echo "of hop $KHO_HOP" >$ring/add
	if [ -z "${UNTRACED:-}" ]; then
		kho keep --trace
		echo "traced in hop $KHO_HOP" >/sys/kernel/tracing/trace_marker
	fi
	[ -z "$KHO_NEXT" ] || load
}

# Checks that each arrived as it was.
arrived() {
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	kho get blob | kho-guest hash --same blob
	mkdir -p /k
	mount -t khofs none /k -o name=vm
	kho-guest hash-tree /k --same khofs
	[ "$(cat $ring/counter)" = $KHO_HOP ]
	[ "$(cat $ring/ring)" = "$(for hop in $(seq 0 $((KHO_HOP - 1))); do echo "$hop of hop $hop"; done)" ]
	[ -n "${UNTRACED:-}" ] || kho trace --hop $KHO_HOP | grep "tracing_mark_write: traced in hop $((KHO_HOP - 1))\$"
}

# The kernel has all NUMA nodes, each with memory, and doctor has nothing against the machine.
nodes_are_there() {
	[ "$(ls -d /sys/devices/system/node/node[0-9]* | wc -l)" = $NODES ]
	for node in /sys/devices/system/node/node[0-9]*; do
		[ "$(awk '/MemTotal/ { print $4 }' $node/meminfo)" -gt 1000000 ]
	done
	kho doctor
}
