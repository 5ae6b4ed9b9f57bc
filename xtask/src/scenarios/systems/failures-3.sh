ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "kho-capture.service: .*timed out"
journal_says -1 "NOTHING IS HANDED OVER: the capture did not come to its end"
journal_says -1 "@OTHER@.* starts without a handover"
rm -r /etc/systemd/system/kho-capture.service.d /etc/kho/keep.d/large.conf
systemctl daemon-reload
# A best-effort entry that cannot be taken costs nobody else.
[ "$(cat /srv/must/file)" = must ]
arm @OWN@
rm -r /srv/extra
echo changed > /srv/must/file
