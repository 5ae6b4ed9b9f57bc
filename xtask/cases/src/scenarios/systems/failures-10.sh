ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: a kernel is loaded, but not by kho, and 1 entry is kept"
journal_says -1 "kho-capture.service: .*status=52"
clean_journal 0
