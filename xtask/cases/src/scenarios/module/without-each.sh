kho-guest fill
ring_is 0 6
kho status
[ $(kho get blob) = kept ]
# A list of unclaimed nodes that is far longer than a page, and all nodes at once.
if [ $KHO_HOP = 2 ]; then
	grep -c a-node-with $sys/release
	[ $(grep -c '^/test/a-node-with-a-long-name-[0-9]* 4096$' $sys/release) = 1000 ]
	[ $(cat $sys/release | wc -c) -gt 20000 ]
	[ $(kho status | grep -c 'unclaimed /test/a-node') = 1000 ]
	fails sh -c "printf /no-such-node >$sys/release"
	kho release /no-such-node || [ $? = 34 ]
	refused 'there is blob, /test, /test/.* and 99[0-9] more, see kho status' kho release /no-such-node
	refused 'there is blob, /test, ' kho release no-such-blob
	kho release /test/a-node-with-a-long-name-7
	refused 'nothing of /test/a-node-with-a-long-name-7 is left' kho release /test/a-node-with-a-long-name-7
	fails sh -c "printf /test/a-node-with-a-long-name-7 >$sys/release"
	[ $(grep -c a-node-with $sys/release) = 999 ]
	kho release /test
fi
# A node whose driver is absent for a hop goes on untouched.
[ $KHO_HOP = 2 ] || exit 0
before=$(mem_total)
kho release blob
[ $(mem_total) -gt $before ]
refused 'given back' kho get blob
echo kept | kho keep --name blob -
