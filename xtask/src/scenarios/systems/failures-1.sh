ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: .*/srv/must does not exist"
journal_says -1 "kho: @OTHER@.* starts without a handover"
says "NOTHING IS HANDED OVER" journalctl -b -1 -k --no-pager
journal_says -1 "kho-capture.service: .*status=31"
journal_says 0 "/srv/must does not exist: no handover until"
clean_journal 0
# What was said when it was armed counts before the file: cold.
mv /srv/gone /srv/must
arm @OTHER@ --on-failure cold
mv /srv/must /srv/gone
