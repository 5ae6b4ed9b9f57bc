ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 2
says "carrier   the initrd" kho status
says "dracut" journalctl -b --no-pager -o cat
sha256sum -c /root/hash
[ "$(kho get token)" = sesame ]
clean_journal 0
