# The decoder shows the data that the kernel could restore; the kernel does not hand it on.
says 'KHO restore succeeded'
entry in kho_test | head -1 | grep 'kho-test-v1 at 0x'
entry in kho_test | grep -x ' *nr_folios = [1-9][0-9]*'
