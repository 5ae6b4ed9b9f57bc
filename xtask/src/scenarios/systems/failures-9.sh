ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
clean_journal 0
