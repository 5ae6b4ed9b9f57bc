text=/sys/kernel/kho_note/text
[ -z "$(cat $text)" ]
echo first >$text
echo 1 >$sys/active
fails sh -c "echo no >$text"
kho validate --out
echo 0 >$sys/active
rmmod kho_note
insmod $modules/kho_note.ko
[ -z "$(cat $text)" ]
echo "hop 0" >$text
