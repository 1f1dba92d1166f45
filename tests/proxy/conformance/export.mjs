// The suite's tests as JSON: node export.mjs SUITE_DIRECTORY
import { pathToFileURL } from 'url'
const { default: suites } = await import(pathToFileURL(process.argv[2] + '/tests/index.mjs'))
console.log(JSON.stringify(suites))
