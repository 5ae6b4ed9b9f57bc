ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 2
journal_says 0 "hop 2 from @OTHER@"
journal_says -1 "captured 0 entries for @OWN@.* of drivers"
case $(findmnt -n -o FSTYPE /var/lib/redis),$(findmnt -n -o FSTYPE /var/lib/postgresql/*) in
khofs,khofs) ;;
*) findmnt; exit 1 ;;
esac
test -e /var/lib/redis/thawed
says "^khofs *redis " kho status
[ "$(redis-cli dbsize)" = 501 ]
[ "$(redis-cli get key:500)" = more ]
[ "$(sql "SELECT count(*) FROM rows")" = 20001 ]
sql "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM rows WHERE n <= 20000" | kho-guest same rows
clean_journal 0 -1
