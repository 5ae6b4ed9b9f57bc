ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
says "carrier   the initrd" kho status
says "the initrd brought" journalctl -b -k --no-pager -o cat
sha256sum -c /root/hash
[ "$(kho get token)" = sesame ]
# What was restored is in memory once.
[ "$(du -m /run/kho/carried | cut -f 1)" -lt 20 ]
[ "$(stat -c %a /run/kho/carried)" = 700 ]
clean_journal 0
image=$(kernel @OWN@)
kho load --carrier initrd "$image" --reuse-cmdline
