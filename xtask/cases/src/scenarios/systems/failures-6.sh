@NO-DISK@ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 2
[ "$(cat /srv/must/file)" = changed ]
test -e /srv/must/writable
@FORCE@