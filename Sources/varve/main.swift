import VarveCommands

VarveCommand.main()
