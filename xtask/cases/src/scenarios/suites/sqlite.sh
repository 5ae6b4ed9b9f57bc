# Databases on khofs, each with a writer that the kexec stops at any point. `persist` overwrites its journal and its
# pages in place, which the active phase allows; the other modes need new pages, or remove files.
foreign
mkdir -p /k
mount -t khofs none /k -o name=db
modes='wal delete persist'

# writer MODE: transactions without end. After each commit the writer overwrites a number in place.
writer() {
	n=$(sqlite3 "/k/$1.db" 'select n from last')
	while :; do
		n=$((n + 1))
		echo "begin;"
		[ $1 = persist ] || echo "insert into row values ($n, $n % 1000, randomblob(2500));"
		[ $1 != persist ] || echo "update row set body = randomblob(2500), mark = $n where id = $n % 50;"
		echo "update last set n = $n;"
		echo "commit;"
		# The leading 1 keeps it a decimal number for the shell.
		echo ".shell printf 1%09d $n 1<>/k/$1.committed"
	done | sqlite3 -bail -cmd "pragma journal_mode = $1; pragma synchronous = full;" "/k/$1.db"
}
committed() {
	echo $(($(cat "/k/$1.committed") - 1000000000))
}

if [ "$KHO_HOP" = 0 ]; then
	for mode in $modes; do
		sqlite3 "/k/$mode.db" "create table row (id integer primary key, mark integer, body blob);
			create table last (n integer); insert into last values (0);"
		printf 1000000000 >"/k/$mode.committed"
	done
	sqlite3 /k/persist.db "with recursive c (n) as (select 0 union all select n + 1 from c where n < 49)
		insert into row select n, 0, randomblob(2500) from c"
	echo 0 >/k/before
fi
for mode in $modes; do
	said=$(sqlite3 "/k/$mode.db" 'pragma integrity_check')
	n=$(sqlite3 "/k/$mode.db" 'select n from last')
	rows=$(sqlite3 "/k/$mode.db" 'select count(*) from row')
	noted=$(committed $mode)
	echo "$mode: $said; $noted noted as committed, $n found, $rows rows"
	[ "$said" = ok ]
	[ "$n" -ge "$noted" ]
	if [ $mode = persist ]; then
		[ "$rows" = 50 ]
		[ "$(sqlite3 /k/persist.db 'select max(mark) from row')" = "$n" ]
	else
		[ "$rows" = "$n" ]
	fi
	# Each writer committed something before the kexec stopped it.
	[ "$noted" -ge $((KHO_HOP * 3)) ]
done
[ -n "$KHO_NEXT" ] || exit 0
for mode in $modes; do
	writer $mode >"/tmp/$mode" 2>&1 &
done
for mode in $modes; do
	waited=0
	while [ "$(committed $mode)" -lt $((KHO_HOP * 3 + 3)) ] && [ $waited -lt 60 ]; do
		sleep 1
		waited=$((waited + 1))
	done
	tail -n 3 "/tmp/$mode"
done
