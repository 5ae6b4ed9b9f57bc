# Releases of memory.
case $KHO_HOP in
0)
	kho-guest bytes 3000001 --seed 2 | kho keep --name blob -
	kho-guest bytes 3000001 --seed 3 | kho keep --name other -
	kho-guest bytes 3000001 --seed 3 | kho-guest hash --same other
	mkdir -p /srv/kept
	kho-guest bytes 3000001 --seed 4 >/srv/kept/file
	kho keep /srv/kept
	;;
*)
	address blob | kho-guest report blob
	# The blob is in one piece: the host looks at all of it.
	kho dump --json | tr -d ' \n' | grep -q '"label":"blob","mem":\[{[^}]*}\]'
	kho-guest mark before
	kho release blob
	kho-guest mark after
	refused '' kho get blob
	kho get other | kho-guest hash --same other
	# A restore releases the memory of the restored content at once.
	before=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
	kho restore
	kho-guest bytes 3000001 --seed 4 | cmp - /srv/kept/file
	after=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
	echo "MemTotal $before KiB, after the restore $after KiB"
	[ $((after - before)) -ge 2900 ]
	;;
esac
