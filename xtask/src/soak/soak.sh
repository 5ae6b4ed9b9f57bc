compared=0
compared_bytes=0
entries=0

# begin ENTRIES: so many arrived.
begin() {
	entries=$1
	[ "$KHO_HOP" = 0 ] || {
		# Without the module all of it is reserved; with it, what nobody needs was given back.
		[ -e /sys/kernel/kho ] || kho-guest ranges --at-least 1 | tail -n 1
		kho-guest fill
		kho status --json >/dev/null
	}
	awk '/^MemTotal/ { print $2 }' /proc/meminfo | kho-guest report MemTotal
	kho-guest kept | kho-guest report reserved
	# The sample driver's ring, where there is one: two records per hop, kept in place.
	ring=/sys/kernel/kho_ring
	[ ! -e $ring ] || {
		records=$((2 * KHO_HOP))
		[ "$(cat $ring/counter)" = $records ]
		number=0
		while read -r found text; do
			[ "$found $text" = "$number record of hop $((number / 2))" ]
			number=$((number + 1))
		done <$ring/ring
		[ $number = $records ]
		echo "record of hop $KHO_HOP" >$ring/add
		echo "record of hop $KHO_HOP" >$ring/add
		kho-guest report driver $records
	}
}

add_blob() {
	kho-guest bytes $2 --seed $3 >/tmp/new
	kho-guest hash --same $1 </tmp/new
	kho keep --name $1 - </tmp/new >/dev/null
	rm /tmp/new
}

add_directory() {
	kho-guest make-tree /srv/$1 --bytes $2 --seed $3
	kho-guest hash-tree /srv/$1 --same $1
	kho keep /srv/$1 --name $1 >/dev/null
}

count() {
	compared=$((compared + 1))
	compared_bytes=$((compared_bytes + $1))
}

check_blob() {
	kho get $1 >/tmp/got
	[ $(wc -c </tmp/got) = $2 ]
	kho-guest hash --same $1 </tmp/got
	rm /tmp/got
	count $2
}

# To its place: the next load reads it there again.
restore_directory() {
	kho restore $1 >/dev/null
	kho-guest hash-tree /srv/$1 --same $1
	count $2
}

# Elsewhere: the next load carries on what arrived, where it is.
look_at_directory() {
	mkdir /tmp/look
	kho restore --into /tmp/look $1 >/dev/null
	kho-guest hash-tree /tmp/look/srv/$1 --same $1
	rm -rf /tmp/look
	count $2
}

remove() {
	kho keep --remove $1 >/dev/null
	rm -rf /srv/$1
}

# The host compares what arrived in the memory of the machine.
outside() {
	[ "$KHO_HOP" != 0 ] || return 0
	kho dump --json | tr -d '\n' | sed 's/  *//g' | kho-guest report tree
	kho-guest report entries $entries
	kho-guest mark outside
}

# finish MIB: loads while so much memory is in use.
finish() {
	kho-guest report entries $entries
	kho-guest report compared $compared
	kho-guest report compared-bytes $compared_bytes
	[ -n "$KHO_NEXT" ] || return 0
	head -c $(($1 << 20)) /dev/zero >/tmp/in-use
	before=$(kho-guest boottime)
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	echo "$before $(kho-guest boottime)" | awk '{ print $2 - $1 }' | kho-guest report load-seconds
	kho-guest loaded
}
