check_tree_and_blob
mkdir -p /srv/vm
mount -t khofs none /srv/vm -o name=vm
kho-guest hash --same large </srv/vm/large
if [ "$KHO_NEXT" ]; then
	kho-guest mark inflate
	load
	kho-guest loaded
else
	# The balloon of the previous kernel left with it; the driver of this one takes memory again.
	kho-guest mark deflate
	kho-guest fill
	kho-guest hash --same large </srv/vm/large
fi
