ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
says "hop 1 from @OWN@" kho status
journal_says 0 "hop 1 from @OWN@"
journal_says 0 "restored keep.d:var-lib-redis"
journal_says 0 "restored keep.d:var-lib-postgresql"
journal_says -1 "captured 2 entries for @OTHER@"
test -s /run/kho/status.json
[ "$(redis-cli dbsize)" = 500 ]
[ "$(redis-cli get key:499)" = "value-499-$(printf %0100d 499)" ]
sql "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM rows" | kho-guest same rows
clean_journal 0 -1
# And back, with more in both.
redis-cli set key:500 more > /dev/null
sql "INSERT INTO rows VALUES (20001, md5('20001'))"
arm @OWN@
