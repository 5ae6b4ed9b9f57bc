ready
arrived_hop 1
journal_says 0 "restored keep.d:srv-must"
[ "$(cat /srv/must/file)" = changed ]
clean_journal 0
