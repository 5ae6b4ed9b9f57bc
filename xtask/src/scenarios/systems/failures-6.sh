ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 2
[ "$(cat /srv/must/file)" = changed ]
test -e /srv/must/writable
# By force: systemd stops no unit, so nothing takes the content. What was chosen for a failure happens all the same.
arm @OTHER@ --on-failure cold
kho-guest leave "systemctl --force kexec"
